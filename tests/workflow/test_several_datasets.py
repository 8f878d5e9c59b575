"""--learn-from, and a model applied to a dataset that it has not learned from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import pandas as pd
import pytest
from support.bids_tree import SPACE, make_bids
from support.command_line import restored_process

from fmrisynth.cli.main import main
from fmrisynth.model.info import read_info

SMALL = [
    *("--set", "preprocess.voxel_size=4"),
    *("--set", "denoiser.backbone.widths=[16, 32]"),
    *("--set", "denoiser.backbone.blocks=[1, 1]"),
    *("--max-steps", 2, "--sampling-steps", 1, "--precision", "32-true", "--device", "cpu"),
]
DRY = ("participant", "--dry-run")
Call = Callable[..., tuple[int, str, str]]


def make_site(root: Path, **options: Any) -> Path:
    """A dataset that states no site, whose participants are nobody of another one."""
    site = make_bids(root, **{"tasks": ("motor",), "n_volumes": 32, **options})
    (site / "participants.tsv").unlink()
    return site


def described(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "dataset_description.json").read_text())
    return content


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sites of three participants with the same labels; in the second other tasks and TR."""
    root = tmp_path_factory.mktemp("sites")
    make_site(root / "here")
    make_site(root / "there", tasks=("motor", "gonogo"), t_r=1.0, n_volumes=48,
              shape=(10, 11, 10), seed=1)  # fmt: skip
    make_site(root / "elsewhere", t_r=3.0, n_volumes=24, participants=("01", "02", "03", "04"),
              seed=2)  # fmt: skip
    return root


@pytest.fixture
def there_too(sites: Path) -> tuple[object, ...]:
    return ("--learn-from", f"Away={sites / 'there'}")


# What is refused before anything is computed


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("a b=D",), "'a b' is no name of a dataset"),
        (("a:b=D",), "'a:b' is no name of a dataset"),
        (("=D",), "'' is no name of a dataset"),
        (("a=D", "a=E"), "two datasets are called 'a'"),
    ],
)
def test_names_that_are_none_or_taken(
    call: Call, sites: Path, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    code, _, text = call(sites / "here", tmp_path / "out", *DRY, "--learn-from", *words)
    assert code == 64
    assert said in text


def test_folders_of_one_name_are_two_datasets(call: Call, sites: Path, tmp_path: Path) -> None:
    for site in ("there", "elsewhere"):
        shutil.copytree(sites / site, tmp_path / site / "bids")
    roots = [tmp_path / site / "bids" for site in ("there", "elsewhere")]
    code, shown, text = call(sites / "here", tmp_path / "out", *DRY, "--learn-from", *roots)
    assert code == 0, text
    split = json.loads(shown)["model"]["split"]
    labels = {*split["training"], *split["held_out"]}
    assert labels == {
        *("01", "02", "03", "bids:01", "bids:02", "bids:03"),
        *("bids2:01", "bids2:02", "bids2:03", "bids2:04"),
    }


@pytest.mark.parametrize("copied", [False, True])
def test_a_dataset_that_is_given_twice(
    call: Call, sites: Path, tmp_path: Path, copied: bool
) -> None:
    again = sites / "here"
    if copied:
        again = Path(shutil.copytree(again, tmp_path / "copy"))
    code, _, text = call(sites / "here", tmp_path / "out", *DRY, "--learn-from", f"b={again}")
    assert code == 64
    assert f"--learn-from b={again.resolve()}: it has participants of" in text


def test_another_space_is_refused_by_name(call: Call, sites: Path, tmp_path: Path) -> None:
    other = make_site(tmp_path / "other", space="MNI152NLin6Asym", seed=4)
    code, _, text = call(sites / "here", tmp_path / "out", *DRY, "--learn-from", other)
    assert code == 18
    assert f"--learn-from other={other}" in text
    assert f"no BOLD image in the space {SPACE}. There are: MNI152NLin6Asym" in text
    assert f"have to be in one space, here {SPACE}" in text


def test_a_space_without_label_is_not_taken_for_one(
    call: Call, sites: Path, tmp_path: Path
) -> None:
    raw = make_site(tmp_path / "raw", derivatives=None, seed=4)
    code, _, text = call(raw, tmp_path / "out", *DRY, "--learn-from", sites / "there")
    assert code == 65
    assert f"images are in the space {SPACE}" in text


def test_an_output_in_a_further_dataset_is_refused(call: Call, sites: Path) -> None:
    out = sites / "there" / "sub-01" / "out"
    code, _, text = call(sites / "here", out, *DRY, "--learn-from", sites / "there")
    assert code == 73
    assert "lies inside the input" in text


def test_the_split_of_a_dataset_is_that_of_its_own(
    call: Call, sites: Path, tmp_path: Path, there_too: tuple[object, ...]
) -> None:
    splits = []
    for more in ((), there_too):
        code, shown, text = call(sites / "here", tmp_path / "out", *DRY, *more)
        assert code == 0, text
        splits.append(json.loads(shown)["model"]["split"])
    alone, together = splits
    assert [p for p in together["held_out"] if ":" not in p] == alone["held_out"]
    assert {p for p in together["training"] if ":" not in p} == {*alone["training"]}
    assert len([p for p in together["held_out"] if p.startswith("Away:")]) == 1


# Both levels


@pytest.fixture(scope="module")
def trained(sites: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a call that learns from two sites."""
    out = tmp_path_factory.mktemp("trained") / "out"
    words = (sites / "here", out, "participant", "--learn-from", f"Away={sites / 'there'}")
    with restored_process(), pytest.raises(SystemExit) as stop:
        main([str(word) for word in (*words, *SMALL, "--nprocs", 1, "--skip-bids-validation")])
    assert not stop.value.code
    return out


@pytest.mark.slow
def test_all_sites_are_learned_and_one_is_written(trained: Path, sites: Path) -> None:
    info = read_info(trained / "model")
    assert info.vocabulary.sites == ("Away", "here")
    assert set(info.vocabulary.tasks) == {"motor", "gonogo"}
    assert info.vocabulary.longest_history == 20  # of the shorter TR
    assert [(known.name, known.title) for known in info.datasets] == [
        ("", "here"), ("Away", "there"),
    ]  # fmt: skip
    assert {p for p in info.split.training if p.startswith("Away:")}
    images = sorted(trained.rglob("*_desc-synth_bold.nii.gz"))
    assert [path.name[:17] for path in images] == [f"sub-0{k}_task-motor" for k in (1, 2, 3)]
    assert {nib.load(path).shape for path in images} == {(8, 9, 8, 32)}
    sidecar = json.loads(images[0].with_name(images[0].name[:-7] + ".json").read_text())
    assert sidecar["FmrisynthProvenance"]["Site"] == "here"
    card = (trained / "model" / "README.md").read_text()
    assert "learned from: here; there" in card
    text = " ".join([card, (trained / "model" / "config.json").read_text()])
    assert str(sites) not in text  # no path is published


@pytest.mark.slow
def test_the_output_names_all_sources_and_keeps_them(
    call: Call, trained: Path, sites: Path
) -> None:
    first = described(trained)
    assert len(first["SourceDatasets"]) == 2
    assert (trained / first["DatasetLinks"]["Away"]).resolve() == (sites / "there").resolve()
    assert "> there (learned from only)" in (trained / "README.md").read_text()
    code, _, text = call(sites / "here", trained, "participant", *SMALL)  # nothing is left to do
    assert code == 0, text
    assert described(trained) == first


@pytest.mark.slow
def test_a_model_that_has_learned_from_others_is_not_taken_for_another(
    call: Call, trained: Path, sites: Path
) -> None:
    words = (sites / "here", trained, "participant", "--learn-from", sites / "elsewhere")
    code, _, text = call(*words)
    assert code == 64
    assert "which has learned from Away" in text


@pytest.mark.slow
def test_a_further_dataset_keeps_its_roles_and_its_site(
    call: Call, trained: Path, sites: Path, tmp_path: Path
) -> None:
    """Applied to the second site, the model knows whom of it it has learned from."""
    words = (sites / "there", tmp_path, "participant", "--model", trained / "model")
    code, _, text = call(*words, "--task-id", "gonogo", *SMALL)
    assert code == 0, text
    split = read_info(trained / "model").split
    table = pd.read_csv(tmp_path / "participants.tsv", sep="\t")
    for label, role in zip(table["participant_id"], table["role"], strict=True):
        assert role == split.role(label.replace("sub-", "Away:"))
    sidecar = next(tmp_path.rglob("*_desc-synth_bold.json"))
    assert json.loads(sidecar.read_text())["FmrisynthProvenance"]["Site"] == "Away"


@pytest.mark.slow
def test_a_site_that_was_not_learned_is_judged_by_its_own_participants(
    call: Call, trained: Path, sites: Path, tmp_path: Path
) -> None:
    """Labels are those of participants of the training set, who are others."""
    words = (sites / "elsewhere", tmp_path)
    more = ("--model", trained / "model")
    code, _, text = call(*words, "participant", *more, *SMALL)
    assert code == 0, text
    table = pd.read_csv(tmp_path / "participants.tsv", sep="\t")
    assert {*table["role"]} == {"unseen"}
    assert "> there (learned from only)" in (tmp_path / "README.md").read_text()
    code, _, text = call(*words, "group", *more, "--baselines", "none", "--device", "cpu")
    assert code == 0, text
    page = (tmp_path / "group.html").read_text()
    assert "has learned from no participant of this dataset, but from: here; there." in page
