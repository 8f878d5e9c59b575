"""--dry-run: says what would happen, and leaves everything as it was."""

import json
from pathlib import Path

import pytest
from support.tiny_model import make_model


def listing(root):
    """Every path below a folder, with its time and size."""
    return {
        str(p.relative_to(root)): (p.lstat().st_mtime_ns, p.lstat().st_size)
        for p in sorted(root.rglob("*"))
    }


@pytest.fixture
def dry(call, tmp_path):
    """Run with --dry-run; what it printed. Nothing below tmp_path changes."""

    def run(*words):
        before = listing(tmp_path)
        code, out, err = call(*words, "--dry-run")
        assert listing(tmp_path) == before
        assert code == 0, err
        return json.loads(out)

    return run


def test_before_there_is_a_model(dry, tiny_bids, tmp_path):
    out, before = tmp_path / "out", listing(tiny_bids)
    said = dry(
        tiny_bids, out, "participant", "--participant-label", "02", "--n-samples", 2,
        "--set", "denoiser.noise=white", "--sampling-steps", 7, "--bids-database-dir",
        tmp_path / "db", "-w", tmp_path / "work",
    )  # fmt: skip
    assert not out.exists()
    assert listing(tiny_bids) == before
    assert said["level"] == "participant"
    assert said["settings"]["n_samples"] == 2
    assert said["settings"]["participants"] == ["02"]
    model = said["model"]
    assert model["state"] == "will be trained"
    assert model["config"]["denoiser"]["noise"] == "white"
    assert model["config"]["sampling"]["steps"] == 7
    assert sorted(model["split"]["training"] + model["split"]["held_out"]) == ["01", "02", "03"]
    read = [path for paths in said["reads"].values() for path in paths]
    assert all(Path(path).is_file() for path in read)
    participants = {*model["split"]["training"], "02"}
    assert {Path(path).name[4:6] for path in read} == participants
    images = [Path(p) for p in said["writes"] if p.endswith("_desc-synth_bold.nii.gz")]
    assert [p.name.split("_space")[0] for p in images] == [
        f"sub-02_task-{task}_run-{run}" for task in ("motor", "wm") for run in (1, 2)
    ]
    assert set(said["writes"].values()) == {"new"}
    assert str(out / "dataset_description.json") in said["writes"]


def test_with_a_model(dry, tiny_bids, tmp_path):
    make_model().save(tmp_path / "model")
    said = dry(tiny_bids, tmp_path / "out", "participant", "--model", tmp_path / "model")
    assert said["model"]["state"] == "is there and will be loaded"
    assert said["model"]["split"] == {"training": ["01", "02"], "held_out": ["03"]}
    assert said["model"]["config"]["sampling"]["steps"] == 6
    assert not [p for p in said["writes"] if p.startswith(str(tmp_path / "model"))]


def test_training_only_writes_no_runs(dry, tiny_bids, tmp_path):
    said = dry(tiny_bids, tmp_path / "out", "participant", "--train-only")
    assert not [p for p in said["writes"] if "sub-" in p]
    assert [p for p in said["writes"] if p.startswith(str(tmp_path / "out" / "model"))]


def test_what_it_names_is_what_is_written(call, dry, tiny_bids, tmp_path):
    make_model().save(tmp_path / "model")
    words = (
        tiny_bids, tmp_path / "out", "participant", "--model", tmp_path / "model", "-t", "motor",
        "--participant-label", "03", "--sampling-steps", 1, "--device", "cpu",
        "--precision", "32-true",
    )  # fmt: skip
    said = dry(*words)
    code, _, err = call(*words)
    assert code == 0, err
    made = {str(p) for p in (tmp_path / "out").rglob("*") if p.is_file() and "logs" not in p.parts}
    assert made == set(said["writes"])
    again = dry(*words)
    assert set(again["writes"].values()) == {"there already"}


def test_a_bad_run_is_named(dry, tiny_bids_copy, tmp_path):
    bad = next(tiny_bids_copy.rglob("sub-01_task-motor_events.tsv"))
    bad.unlink()
    said = dry(tiny_bids_copy, tmp_path / "out", "participant")
    (reason,) = said["skipped"].values()
    assert bad.name in reason


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--participant-label", "99"), 18),
        (("--set", "colour=red"), 64),
        (("--model", "nowhere"), 64),
        (("--mem", "0.1"), 64),
        (("-d", "nowhere"), 66),
    ],
    ids=lambda w: w[0] if isinstance(w, tuple) else str(w),
)
def test_what_would_fail_fails(call, tiny_bids, tmp_path, monkeypatch, words, code):
    monkeypatch.chdir(tmp_path)
    found, out, err = call(tiny_bids, tmp_path / "out", "participant", "--dry-run", *words)
    assert found == code
    assert out == ""
    assert err.strip()
    assert list(tmp_path.iterdir()) == []


def test_group_level(call, dry, tiny_bids, tmp_path):
    make_model().save(tmp_path / "out" / "model")
    code, _, err = call(
        tiny_bids, tmp_path / "out", "participant", "-t", "motor", "--sampling-steps", 1,
        "--device", "cpu", "--precision", "32-true",
    )  # fmt: skip
    assert code == 0, err
    contrasts = tmp_path / "contrasts.json"
    contrasts.write_text(json.dumps({"motor": {"hand-foot": {"hand": 1, "foot": -1}}}))
    said = dry(
        tiny_bids, tmp_path / "out", "group", "--baselines", "none", "--contrasts", contrasts
    )
    assert said["contrasts"] == ["hand-foot"]
    assert said["settings"]["baselines"] == []
    read = [Path(path).name for paths in said["reads"].values() for path in paths]
    assert sum(name.endswith("_desc-synth_bold.nii.gz") for name in read) == 3
    assert sum(name.endswith("_desc-preproc_bold.nii.gz") for name in read) == 6
    written = {str(Path(p).relative_to(tmp_path / "out")) for p in said["writes"]}
    assert {"group.html", "sub-01.html", "group/metrics.tsv", "logs/CITATION.md"} <= written
    code, out, err = call(
        tiny_bids, tmp_path / "out", "group", "--dry-run", "--compare", tmp_path / "nowhere"
    )
    assert (code, out) == (66, "")
    assert "nowhere" in err
