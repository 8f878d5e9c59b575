"""--new-participants: what is written, what is not, and what goes wrong with a message."""

import json

import pytest

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
