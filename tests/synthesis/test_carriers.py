"""How loud a synthetic run is: as the other runs of its participant are."""

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from support.bids_tree import make_bids
from support.tiny_model import SHAPE, affine_of, ball, make_bold, make_model

from fmrisynth.bids.search import find_runs
from fmrisynth.config.model import SamplingConfig
from fmrisynth.errors import UsageError
from fmrisynth.preprocess.carrier import remove_drift, removed_basis, split
from fmrisynth.synthesis.carriers import choose_carrier, noise_sd_of
from fmrisynth.synthesis.run_statistics import SiblingReader
from fmrisynth.synthesis.runs import SynthesisPlan, write_synthetic_runs

HIGH_PASS = 1 / 128


def carriers_of(*factors):
    """Carriers of runs of one participant, whose noise is that of the first times factors."""
    first = split(make_bold(), HIGH_PASS)[0]
    return {f"run-{i}": replace(first, noise_sd=f * first.noise_sd) for i, f in enumerate(factors)}


# Which noise counts


def test_a_runs_own_noise_does_not_count_where_there_are_others():
    carriers = carriers_of(1.0, 3.0, 10.0)
    base = carriers["run-0"].noise_sd
    for name, expected in (("run-0", 30**0.5), ("run-1", 10**0.5), ("run-2", 3**0.5)):
        np.testing.assert_allclose(noise_sd_of(name, carriers), expected * base, rtol=1e-5)
    loud = carriers | {"run-0": replace(carriers["run-0"], noise_sd=100 * base)}
    np.testing.assert_array_equal(noise_sd_of("run-0", loud), noise_sd_of("run-0", carriers))


def test_a_run_that_is_alone_has_its_own():
    carriers = carriers_of(2.0)
    np.testing.assert_array_equal(noise_sd_of("run-0", carriers), carriers["run-0"].noise_sd)


def test_voxels_that_no_other_run_covers_have_the_runs_own():
    carriers = carriers_of(1.0, 3.0)
    cut = carriers["run-1"].noise_sd.copy()
    cut[8:] = 0
    carriers["run-1"] = replace(carriers["run-1"], noise_sd=cut)
    found, base = noise_sd_of("run-0", carriers), carriers["run-0"].noise_sd
    np.testing.assert_allclose(found[:8], 3 * base[:8], rtol=1e-5)
    np.testing.assert_allclose(found[8:], base[8:], rtol=1e-5)
    assert (found[~ball()] == 0).all()


def test_other_grids_are_resampled():
    """A sibling on a lattice of other size gives the same level, on the run's grid."""
    carriers = carriers_of(1.0, 1.0)
    shape, affine = (21, 21, 21), affine_of((21, 21, 21), 3.0)
    mask = ball(shape)
    carriers["run-1"] = replace(
        carriers["run-1"], noise_sd=np.where(mask, 2.0, 0).astype("f4"), mask=mask, affine=affine
    )
    found = noise_sd_of("run-0", carriers)
    assert found.shape == SHAPE
    inner = np.zeros(SHAPE, bool)
    inner[5:11, 5:11, 5:11] = True
    np.testing.assert_allclose(found[inner], 2, rtol=1e-3)


# What is measured as noise


def test_what_a_runs_events_evoke_is_no_noise(tmp_path):
    """Voxels that respond strongly are as loud as the others."""
    root = make_bids(tmp_path / "bids", participants=("01",), tasks=("motor",), n_volumes=60)
    (run,) = find_runs(root).runs
    carrier = SiblingReader(make_model(), None, None).read(run)[0]
    image = nib.load(run.bold).get_fdata(dtype=np.float32)
    active = np.zeros(carrier.mask.shape, bool)
    active[2:4, 3:6, 3:6] = True
    series = image[active & carrier.mask]
    plain = (series / series.mean(1, keepdims=True) * 100).T
    plain = remove_drift(plain, removed_basis(60, run.t_r, HIGH_PASS)[:, 1:]).std(0)
    level = np.median(carrier.noise_sd[~active & carrier.mask])
    # the blocks of the simulation are no HRFs: not all of them is explained
    explained = np.median(carrier.noise_sd[active & carrier.mask])
    assert np.median(plain) > 1.6 * level
    assert explained < 0.75 * np.median(plain)


# Whole runs


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Runs of participants with one, and with three runs of which the second is 10 × as loud."""
    root = tmp_path_factory.mktemp("carriers")
    bids = make_bids(
        root / "bids", participants=("01",), tasks=("motor",), runs=("1", "2", "3"), n_volumes=48
    )
    alone = make_bids(root / "alone", participants=("01",), tasks=("motor",), n_volumes=48)
    made = {}
    for name, folder in (("several", bids), ("alone", alone)):
        runs = find_runs(folder).runs
        if name == "several":
            image = nib.load(runs[1].bold)
            data = image.get_fdata(dtype=np.float32)
            mean = data.mean(3, keepdims=True)
            loud = (mean + 10 * (data - mean)).astype(np.float32)
            nib.save(nib.Nifti1Image(loud, image.affine, image.header), runs[1].bold)
        made[name] = (runs, _synthesise(root / f"out-{name}", runs))
    return made


def _synthesise(out, runs):
    """Synthetic runs of a model that was made by hand, as images by the run's position."""
    model = make_model()
    sampling = SamplingConfig(sampler="euler", steps=3, stride=4, guidance=0.0)
    plan = SynthesisPlan(out, sampling, 1, 0, {}, runs)
    fabric = Fabric(accelerator="cpu", devices=1, precision="32-true")
    assert write_synthetic_runs(plan, model, runs, fabric) == {}
    return sorted(out.rglob("*_desc-synth_bold.nii.gz"))


def sd_of(path):
    """Median temporal standard deviation of a run without drift, %."""
    data = nib.load(path).get_fdata(dtype=np.float32)
    inside = data.mean(3) > 100
    series = (data[inside] / data[inside].mean(1, keepdims=True) * 100).T
    return float(np.median(remove_drift(series, removed_basis(48, 2.0, HIGH_PASS)[:, 1:]).std(0)))


def test_a_loud_run_gives_its_noise_to_the_others_and_not_to_itself(written):
    runs, images = written["several"]
    real = [sd_of(run.bold) for run in runs]
    assert real[1] > 7 * real[0]
    first, second, third = (sd_of(path) for path in images)
    assert second == pytest.approx((real[0] * real[2]) ** 0.5, rel=0.2)
    for quiet, other in ((first, real[2]), (third, real[0])):
        assert quiet == pytest.approx((real[1] * other) ** 0.5, rel=0.2)


def test_the_sidecar_says_whose_noise_a_run_has(written):
    for name, expected in (("several", "other runs"), ("alone", "own run")):
        for path in written[name][1]:
            sidecar = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
            assert sidecar["FmrisynthProvenance"]["NoiseLevel"] == expected


def test_a_run_that_is_alone_is_as_loud_as_it_was(written):
    runs, images = written["alone"]
    assert sd_of(images[0]) == pytest.approx(sd_of(runs[0].bold), rel=0.2)


# Whose carrier


def carriers_model():
    """A model that knows how carriers differ: by an image that is brighter on one side."""
    model = make_model()
    prior = model.carriers
    side = torch.linspace(-1, 1, SHAPE[0])[:, None, None].expand(SHAPE)
    prior.mean[0] = 1.0
    prior.components[0, 0] = 0.3 * side
    prior.drift_sd.fill_(1.0)
    prior.present.fill_(True)
    return model


@pytest.fixture(scope="module")
def carried(tmp_path_factory):
    """Runs of two participants with each kind of carrier."""
    root = tmp_path_factory.mktemp("carried")
    bids = make_bids(
        root / "bids", participants=("01", "02"), tasks=("motor",), runs=("1", "2"),
        shape=(14, 14, 14), n_volumes=32,
    )  # fmt: skip
    runs, made = find_runs(bids).runs, {}
    for carrier in ("own", "drawn", "group-mean"):
        out = root / carrier
        plan = SynthesisPlan(out, SamplingConfig(backbone=False), 1, 0, {}, runs, carrier=carrier)
        fabric = Fabric(accelerator="cpu", devices=1, precision="32-true")
        assert write_synthetic_runs(plan, carriers_model(), runs, fabric) == {}
        made[carrier] = out
    return runs, made


def mean_images(out):
    """Mean images relative to their median inside the brain that all have, (runs, voxels)."""
    images = [
        nib.load(p).get_fdata(dtype=np.float32).mean(3)
        for p in sorted(out.rglob("*_desc-synth_bold.nii.gz"))
    ]
    inside = np.all([image > 100 for image in images], axis=0)
    return [image[inside] / np.median(image[inside]) for image in images]


def test_runs_of_a_participant_share_a_drawn_image_and_others_have_another(carried):
    first, again, other, _ = mean_images(carried[1]["drawn"])
    assert np.abs(first - other).mean() > 3 * np.abs(first - again).mean()


def test_the_mean_participants_image_is_the_same_for_all(carried):
    first, again, other, _ = mean_images(carried[1]["group-mean"])
    for image in (again, other):
        assert np.abs(first - image).mean() < 0.02


def test_nothing_of_the_real_image_is_left_where_the_carrier_is_nobodys(carried):
    """The simulated images are noise in space, which nothing but their own carrier holds."""
    runs, made = carried
    likeness = {}
    for carrier, out in made.items():
        (path, *_) = sorted(out.rglob("*_desc-synth_bold.nii.gz"))
        synthetic, real = (
            nib.load(p).get_fdata(dtype=np.float32).mean(3) for p in (path, runs[0].bold)
        )
        inside = (synthetic > 100) & (real > 100)
        likeness[carrier] = np.corrcoef(synthetic[inside], real[inside])[0, 1]
    assert likeness["own"] > 0.95
    assert max(abs(likeness["drawn"]), abs(likeness["group-mean"])) < 0.1


def test_the_sidecar_says_whose_carrier_a_run_has(carried):
    for carrier, out in carried[1].items():
        for sidecar in out.rglob("*_desc-synth_bold.json"):
            content = json.loads(sidecar.read_text())["FmrisynthProvenance"]
            assert content["Carrier"] == carrier
            assert (content["NoiseLevel"] == "other runs") == (carrier == "own")


def test_a_model_without_carriers_refuses_them():
    for carrier in ("drawn", "group-mean"):
        with pytest.raises(UsageError, match="has learned no carriers"):
            choose_carrier(carrier, make_model())
        assert choose_carrier(carrier, carriers_model()) == carrier
    assert choose_carrier(None, make_model()) == "own"
    with pytest.raises(UsageError, match="expected own, drawn, group-mean"):
        choose_carrier("mine", make_model())
    with pytest.raises(UsageError, match="--new-participants: a model"):
        choose_carrier(None, make_model(), new=True)
