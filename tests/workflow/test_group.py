"""The group level's options choose the rows of the table and the pages that are rebuilt."""

import json
import re
import shutil

import pandas as pd
import pytest
from support.command_line import restored_process
from support.tiny_model import make_model

from fmrisynth.cli.main import main
from fmrisynth.model.model import Model

pytestmark = pytest.mark.slow

MADE = ("--sampling-steps", "1", "--device", "cpu", "--precision", "32-true", "--nprocs", "1")


@pytest.fixture(scope="module")
def template(tiny_bids, tmp_path_factory):
    """An output with a model, the synthetic runs of the tiny dataset, and first-level results."""
    folder = tmp_path_factory.mktemp("group")
    out = folder / "out"
    make_model().save(out / "model")
    for words in (
        ("participant", *MADE, "--skip-bids-validation"),
        ("group", "-w", folder / "work", "--nprocs", "1"),
    ):
        with restored_process(), pytest.raises(SystemExit) as stop:
            main([str(word) for word in (tiny_bids, out, *words)])
        assert not stop.value.code
    return folder


@pytest.fixture
def out(template, tmp_path):
    """A copy of it, with its caches."""
    shutil.copytree(template / "out", tmp_path / "out")
    shutil.copytree(template / "work", tmp_path / "work")
    return tmp_path / "out"


@pytest.fixture
def group(call, out, tmp_path):
    """Run the group level on it."""

    def run(bids_dir, *words):
        return call(bids_dir, out, "group", "-w", tmp_path / "work", *words)

    return run


def generators(out):
    """Generators in the order of the table."""
    return list(dict.fromkeys(pd.read_csv(out / "group" / "metrics.tsv", sep="\t")["generator"]))


def test_the_default_baseline(out):
    assert [g for g in generators(out) if "real" not in g] == [
        "fmrisynth",
        "statistics-only",
        "group-glm",
    ]


def values_of(out, generator):
    rows = pd.read_csv(out / "group" / "metrics.tsv", sep="\t").set_index("generator")
    return rows.loc[generator].set_index("metric")["value"]


def test_a_network_without_a_say_is_statistics_only(group, out, tiny_bids, tmp_path):
    """Its runs are not written twice; those of a network that has a say are."""
    model, written = Model.load(out / "model"), tmp_path / "work" / "group" / "statistics-only"
    for gate in (0.0, 1.0):
        model.denoiser.gate.fill_(gate)
        shutil.rmtree(out / "model")
        shutil.rmtree(written, ignore_errors=True)
        model.save(out / "model")
        code, _, err = group(tiny_bids, "--baselines", "statistics-only")
        assert code == 0, err
        notice = "gave the network of this model no say" in (out / "group.html").read_text()
        model_values, without = (values_of(out, name) for name in ("fmrisynth", "statistics-only"))
        # the network's runs in the output were written with another gate: any other draw will do
        assert notice == (gate == 0)
        assert without.equals(model_values) == (gate == 0)
        assert bool(list(written.rglob("*_bold.nii.gz"))) == (gate > 0)


def test_no_baseline_and_other_outputs(group, out, tiny_bids, tmp_path):
    other = shutil.copytree(out, tmp_path / "other")
    code, _, err = group(
        tiny_bids, "--baselines", "none", "--compare", other, f"again={tmp_path / 'other'}"
    )
    assert code == 0, err
    assert [g for g in generators(out) if "real" not in g] == ["fmrisynth", "other", "again"]
    rows = pd.read_csv(out / "group" / "metrics.tsv", sep="\t").set_index(["metric", "generator"])
    # the same runs by another name give the same figure
    assert rows.loc[("corr", "again"), "value"] == rows.loc[("corr", "fmrisynth"), "value"]
    page = (out / "group.html").read_text(encoding="utf-8")
    assert "again" in page
    assert "group-glm" not in page


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--compare", "nowhere"), 66, "no such directory"),
        (("--compare", "empty"), 18, "holds no finished synthetic run"),
        (("--compare", "fmrisynth=other"), 64, "is taken"),
        (("--compare", "group-glm=other"), 64, "is taken"),
        (("--compare", "real=other"), 64, "is taken"),
        (("--compare", "=other"), 64, "is taken"),
        (("--contrasts", "nowhere.json"), None, "nowhere.json"),
        (("--contrasts", "wrong.json"), None, "wrong.json"),
    ],
    ids=lambda w: " ".join(w) if isinstance(w, tuple) else "",
)
def test_what_cannot_be_compared(
    group, out, tiny_bids, tmp_path, monkeypatch, words, code, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "wrong.json").write_text("[")
    shutil.copytree(out, tmp_path / "other")
    before = (out / "group.html").read_bytes()
    found, _, err = group(tiny_bids, *words)
    assert found == code or (code is None and found in (64, 65, 66))
    assert message in err
    assert (out / "group.html").read_bytes() == before


def test_a_generator_that_has_seen_the_held_out_is_refused(group, out, tiny_bids, tmp_path):
    """The participant held out here is 03."""
    other = shutil.copytree(out, tmp_path / "other")
    for path in other.rglob("sub-03*_desc-synth_bold.json"):
        content = json.loads(path.read_text())
        assert content["FmrisynthProvenance"]["ParticipantRole"] == "held_out"
        content["FmrisynthProvenance"]["ParticipantRole"] = "training"
        path.write_text(json.dumps(content))
    code, _, err = group(tiny_bids, "--compare", other)
    assert code == 64
    assert "learned from 03" in err
    assert "--random-seed" in err


def test_contrasts(group, out, tiny_bids, tmp_path):
    path = tmp_path / "contrasts.json"
    path.write_text(json.dumps({"motor": {"hand-foot": {"hand": 1, "foot": -1}}}))
    code, _, err = group(tiny_bids, "--contrasts", path)
    assert code == 0, err
    metrics = pd.read_csv(out / "group" / "metrics.tsv", sep="\t")["metric"]
    assert any("hand-foot" in name for name in metrics)


def test_pages_are_rebuilt_from_what_is_kept(group, out, tiny_bids):
    written = ["group.html", "sub-01.html", "sub-02.html", "sub-03.html", "logs/CITATION.md"]
    first = {name: (out / name).read_text(encoding="utf-8") for name in written}
    table = (out / "group" / "metrics.tsv").read_bytes()
    for name in written:
        (out / name).unlink()
    code, _, err = group(tiny_bids, "--reports-only")
    assert code == 0, err
    assert "first level" not in err  # nothing is computed again
    for name in written:
        again = (out / name).read_text(encoding="utf-8")
        # the figures of the page are the same; maps are kept in single precision
        assert re.findall(r">\s*([−\d.]+)\s*<", again) == re.findall(
            r">\s*([−\d.]+)\s*<", first[name]
        )
    assert (out / "group" / "metrics.tsv").read_bytes() == table


def test_nothing_kept_to_rebuild_from(group, out, tiny_bids):
    shutil.rmtree(out / "group")
    code, _, err = group(tiny_bids, "--reports-only")
    assert code == 65
    assert "without --reports-only" in err


def test_a_synthetic_run_that_cannot_be_read(group, out, tiny_bids):
    """It is listed, the rest is compared, and the exit code says that something is missing."""
    bad = next(out.rglob("sub-03_task-motor*_desc-synth_bold.nii.gz"))
    bad.write_bytes(bad.read_bytes()[:3000])
    (out / "group.html").unlink()
    code, _, err = group(tiny_bids)
    assert code == 65
    assert bad.name in err
    assert "--skip-bad-runs" in err
    assert bad.name in (out / "group.html").read_text(encoding="utf-8")
    code, _, _ = group(tiny_bids, "--skip-bad-runs")
    assert code == 0
    code, _, err = group(tiny_bids, "--reports-only")
    assert code == 65
    assert bad.name in err
    assert bad.name in (out / "group.html").read_text(encoding="utf-8")


def test_a_synthetic_header_that_cannot_be_read(group, out, tiny_bids):
    bad = next(out.rglob("sub-01_task-motor*_desc-synth_bold.nii.gz"))
    bad.write_bytes(b"nothing")
    code, _, err = group(tiny_bids)
    assert code == 65
    assert bad.name in err
    assert bad.name in (out / "group.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("participant", ["01", "03"])
def test_a_real_run_that_cannot_be_read(call, out, tiny_bids_copy, tmp_path, participant):
    """In training or held out: the baseline and the comparison go on without it."""
    bad = next(
        (tiny_bids_copy / "derivatives").rglob(f"sub-{participant}_task-wm*preproc_bold.nii*")
    )
    bad.write_bytes(bad.read_bytes()[:3000])
    code, _, err = call(tiny_bids_copy, out, "group")
    assert code == 65
    assert bad.name in err
    assert [g for g in generators(out) if "real" not in g] == [
        "fmrisynth",
        "statistics-only",
        "group-glm",
    ]
    code, _, _ = call(tiny_bids_copy, out, "group", "--skip-bad-runs")
    assert code == 0
