"""Runs of new participants are written without any image, and have the participant in common."""

import nibabel as nib
import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from support.bids_tree import make_bids
from support.tiny_model import SHAPE, make_model

from fmrisynth.bids.dataset_files import write_dataset_files
from fmrisynth.bids.derivatives import find_synthetic_runs
from fmrisynth.bids.new_participants import new_runs
from fmrisynth.bids.search import find_runs
from fmrisynth.config.model import SamplingConfig
from fmrisynth.errors import UsageError
from fmrisynth.synthesis.runs import SynthesisPlan, write_synthetic_runs

FABRIC = Fabric(accelerator="cpu", devices=1, precision="32-true")


def carriers_model():
    """A model that knows how carriers differ: by images that are brighter on one side."""
    model = make_model()
    model.carriers.mean[0] = 1.0
    side = torch.linspace(-1, 1, SHAPE[0])[:, None, None].expand(SHAPE)
    model.carriers.components[0, 0] = 0.3 * side
    model.carriers.drift_sd.fill_(1.0)
    model.carriers.present.fill_(True)
    return model


def synthesise(out, runs, model, **more):
    plan = SynthesisPlan(out, SamplingConfig(backbone=False), seed=0, sources={}, siblings=runs,
                         **({"n_samples": 1} | more))  # fmt: skip
    return write_synthetic_runs(plan, model, runs, FABRIC)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Three new participants with two samples of each run, after all images have gone."""
    root = tmp_path_factory.mktemp("new")
    bids = make_bids(root / "bids", tasks=("motor",), shape=(14, 14, 14), n_volumes=32)
    dataset = find_runs(bids)
    for image in bids.rglob("*.nii.gz"):
        image.unlink()
    runs, out = new_runs(dataset, ("01", "02"), 3, 0), root / "out"
    write_dataset_files(out, bids)
    assert synthesise(out, runs, carriers_model(), n_samples=2) == {}
    return runs, out, bids


def mean_image(run):
    image = nib.load(run.bold).get_fdata(dtype=np.float32).mean(3)
    return np.where(image > 0, image, np.nan)


def test_no_image_is_needed(written):
    runs, out, bids = written
    assert not [*bids.rglob("*.nii.gz")]
    found = find_synthetic_runs(out)
    assert len(found) == 2 * len(runs)
    assert all(run.new for run in found)


def test_the_sidecar_says_that_the_participant_is_nobody(written):
    for run in find_synthetic_runs(written[1]):
        content = run.metadata["FmrisynthProvenance"]
        assert content["ParticipantRole"] == "new"
        assert content["Carrier"] == content["NoiseLevel"] == "drawn"
        assert "nobody" in run.metadata["Description"]
        assert not any("bold" in source for source in run.metadata.get("Sources", []))


def test_samples_are_the_same_participant_and_participants_differ(written):
    images = [mean_image(run) for run in find_synthetic_runs(written[1])]
    first, again, other = images[0], images[1], images[2]
    assert not np.array_equal(first, again)
    same, different = (np.nanmean(np.abs(first - image)) for image in (again, other))
    assert different > 3 * same


def test_a_participant_does_not_depend_on_how_many_there_are(written, tmp_path):
    runs, out, bids = written
    write_dataset_files(tmp_path, bids)
    synthesise(tmp_path, runs[:1], carriers_model(), n_samples=2)
    for run in find_synthetic_runs(tmp_path):
        other = out / run.bold.relative_to(tmp_path.resolve())
        assert other.read_bytes() == run.bold.read_bytes()


def test_what_is_finished_stays(written):
    runs, out, _ = written
    before = {run.bold: run.bold.stat().st_mtime_ns for run in find_synthetic_runs(out)}
    assert synthesise(out, runs, carriers_model(), n_samples=2) == {}
    assert {run.bold: run.bold.stat().st_mtime_ns for run in find_synthetic_runs(out)} == before


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"carrier": "own"}, "no image of their own"),
        ({"individuals": "own"}, "no runs that could tell"),
    ],
)
def test_nothing_is_their_own(written, tmp_path, more, said):
    with pytest.raises(UsageError, match=said):
        synthesise(tmp_path, written[0], carriers_model(), **more)
