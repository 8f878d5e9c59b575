"""--new-participants: what is written, what is not, and what goes wrong with a message."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from nilearn.glm.first_level import first_level_from_bids
from support.bids_tree import SPACE
from support.tiny_model import SHAPE, make_model
from support.validator import validator_issues

OPTION = ("--new-participants", 2)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--participant-label", "01"), "--new-participants 2 with --participant-label"),
        (("--train-only",), "--new-participants 2 with --train-only"),
        (("--output-layout", "raw"), "needs a T1w image"),
        (("--carrier", "drawn", "--output-layout", "raw"), "Use --output-layout derivatives"),
    ],
)
@pytest.mark.parametrize("dry", [(), ("--dry-run",)], ids=["", "dry run"])
def test_what_does_not_go_together(call, tiny_bids, tmp_path, words, said, dry):
    code, _, err = call(tiny_bids, tmp_path / "out", "participant", *OPTION, *words, *dry)
    assert code == 64
    assert said in err
    assert not (tmp_path / "out" / "dataset_description.json").exists()


@pytest.mark.parametrize("number", ["0", "-1", "two"])
def test_numbers_that_are_none(call, tiny_bids, tmp_path, number):
    words = (tiny_bids, tmp_path / "out", "participant", "--new-participants", number)
    code, _, err = call(*words)
    assert code == 64
    assert "--new-participants" in err


def test_a_label_that_is_taken(call, bids_factory, tmp_path):
    bids = bids_factory(participants=("01", "02", "synth0002"))
    words = (bids, tmp_path / "out", "participant", *OPTION, "--dry-run")
    code, _, err = call(*words)
    assert code == 64
    assert "has a participant sub-synth0002 already" in err


@pytest.mark.parametrize("words", [OPTION, ("--carrier", "drawn")], ids=str)
def test_too_few_participants_are_known_before_the_training(call, tiny_bids, tmp_path, words):
    out = tmp_path / "out"
    code, _, err = call(tiny_bids, out, "participant", *words, "--skip-bids-validation")
    assert code == 64
    assert "trained on 2 participants has learned no carriers" in err
    assert words[0] in err
    assert not (out / "model").exists()


def test_the_dry_run_names_runs_of_new_participants_and_reads_none_of_their_images(
    call, tiny_bids, tmp_path
):
    code, out, err = call(tiny_bids, tmp_path / "out", "participant", *OPTION, "--dry-run")
    assert code == 0, err
    said = json.loads(out)
    images = [path for path in said["writes"] if path.endswith("desc-synth_bold.nii.gz")]
    assert {path.split("/sub-")[1][:9] for path in images} == {"synth0001", "synth0002"}
    for label, paths in said["reads"].items():
        if label.startswith("sub-synth"):
            assert len(paths) == 1
            assert paths[0].endswith("_events.tsv")


# Both levels


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model whose carriers are known."""
    made = make_model(space=SPACE)
    made.carriers.mean[0] = 1.0
    made.carriers.drift_sd.fill_(1.0)
    side = torch.linspace(-1, 1, SHAPE[0])[:, None, None].expand(SHAPE)
    made.carriers.components[0, 0] = 0.3 * side
    made.carriers.present.fill_(True)
    folder = tmp_path_factory.mktemp("model") / "model"
    made.save(folder)
    return folder


@pytest.mark.slow
def test_runs_of_both_kinds_lie_in_one_output_and_are_two_rows(call, bids_factory, model, tmp_path):
    bids = bids_factory(
        participants=("01", "02", "03", "04"), tasks=("motor",), runs=("1", "2"), n_volumes=32
    )
    out = tmp_path / "out"
    words = (
        bids,
        out,
        "participant",
        "--model",
        model,
        "--skip-bids-validation",
        "--device",
        "cpu",
    )
    for more in (("--participant-label", "03", "04"), ("--new-participants", 3)):
        code, _, err = call(*words, *more, "--individuals", "group")
        assert code == 0, err
    table = pd.read_csv(out / "participants.tsv", sep="\t", dtype=str)
    roles = dict(zip(table["participant_id"], table["role"], strict=True))
    assert roles == {
        "sub-03": "held_out", "sub-04": "unseen",
        **{f"sub-synth000{i}": "new" for i in (1, 2, 3)},
    }  # fmt: skip
    more = ("--model", model, "--skip-bids-validation", "--baselines", "none")
    code, _, err = call(bids, out, "group", *more)
    assert code == 0, err
    metrics = pd.read_csv(out / "group" / "metrics.tsv", sep="\t", na_values=["n/a"])
    rows = {name: set(part["metric"]) for name, part in metrics.groupby("generator")}
    assert set(rows) == {"fmrisynth", "fmrisynth, new participants", "real"}
    assert "individual_correlation" in rows["fmrisynth"] - rows["fmrisynth, new participants"]
    assert {"corr", "carrier_auc", "temporal_sd_ratio"} <= rows["fmrisynth, new participants"]
    pages = {path.name for path in out.glob("*.html")}
    assert {"group.html", "sub-03.html", "sub-synth0001.html"} <= pages


@pytest.mark.slow
@pytest.mark.validator
def test_new_participants_alone_are_a_dataset_and_the_generator_that_is_judged(
    call, bids_factory, model, tmp_path
):
    bids = bids_factory(participants=("01", "02", "03", "04"), tasks=("motor",), n_volumes=32)
    out = tmp_path / "out"
    words = ("--model", model, "--skip-bids-validation", "--device", "cpu")
    code, _, err = call(bids, out, "participant", *words, "--new-participants", 3)
    assert code == 0, err
    assert [i for i in validator_issues(out) if i["severity"] == "error"] == []
    models, images, events, _ = first_level_from_bids(
        out, "motor", space_label=SPACE, derivatives_folder=".", img_filters=[("desc", "synth")]
    )
    assert [model.subject_label for model in models] == [f"synth000{i}" for i in (1, 2, 3)]
    fitted = models[0].fit(images[0], events[0]).compute_contrast("hand")
    assert np.isfinite(fitted.get_fdata()).all()
    code, _, err = call(bids, out, "group", *words, "--baselines", "statistics-only")
    assert code == 0, err
    metrics = pd.read_csv(out / "group" / "metrics.tsv", sep="\t", na_values=["n/a"])
    values = metrics.set_index(["metric", "generator"])["value"]
    # the model without its network writes the same people
    own, without = (values["carrier_distance", name] for name in ("fmrisynth", "statistics-only"))
    assert own == pytest.approx(without, rel=0.05)
