"""Whose response a synthetic run has: its participant's other runs', nobody's, or everybody's."""

import json
import logging

import nibabel as nib
import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from support.bids_tree import make_bids
from support.tiny_model import HIGH_PASS, affine_of, make_model, regions, upsampled

from fmrisynth.bids.events import read_events
from fmrisynth.bids.search import find_runs
from fmrisynth.config.model import SamplingConfig
from fmrisynth.errors import UsageError
from fmrisynth.preprocess.carrier import drift_basis, remove_drift
from fmrisynth.preprocess.design import design_of
from fmrisynth.preprocess.grid import resample
from fmrisynth.synthesis.individuals import choose_individuals
from fmrisynth.synthesis.run_statistics import SiblingReader
from fmrisynth.synthesis.runs import SynthesisPlan, write_synthetic_runs

N_VOLUMES = 60


def model_of(gain_sd=0.5):
    """A model whose participants differ in the gain of all trial types, the same everywhere."""
    model = make_model()
    prior = model.response.prior
    prior.fields[0] = prior.mask.float()
    prior.sd[:2] = torch.tensor([gain_sd, gain_sd])
    return model


def make_runs(root, participants=("01",), runs=("1", "2", "3")):
    bids = make_bids(
        root, participants=participants, tasks=("motor",), runs=runs,
        shape=(14, 14, 14), n_volumes=N_VOLUMES,
    )  # fmt: skip
    return find_runs(bids).runs


def course_of(run):
    """The response to hand as it is expected, without mean and drift, (N,)."""
    events = read_events(run.events, duration=run.duration)
    design = design_of(
        events, ["hand"], N_VOLUMES, run.t_r, start_time=run.start_time, high_pass=HIGH_PASS
    )
    return design.evoked[:, 0, 0]


def plant(run, where, percent):
    """Add a response to hand to a run; mean, drift and mask stay as they are."""
    image = nib.load(run.bold)
    data = image.get_fdata(dtype=np.float32)
    mean = data.mean(3, keepdims=True)
    data += where[..., None] * mean * percent / 100 * course_of(run)
    nib.save(nib.Nifti1Image(data.astype(np.float32), image.affine, image.header), run.bold)


def synthesise(model, runs, out, individuals="own", n_samples=1, work_dir=None, seed=0):
    """Synthetic runs in percent of their mean, (X, Y, Z, N), by label and sample."""
    sampling = SamplingConfig(backbone=False, decoder_noise=False)
    plan = SynthesisPlan(
        out, sampling, n_samples, seed, {}, runs, individuals=individuals, work_dir=work_dir
    )
    fabric = Fabric(accelerator="cpu", devices=1, precision="32-true")
    assert write_synthetic_runs(plan, model, runs, fabric) == {}
    images = {}
    for path in sorted(out.rglob("*_desc-synth_bold.nii.gz")):
        data = nib.load(path).get_fdata(dtype=np.float32)
        mean = data.mean(3, keepdims=True)
        images[path.name] = np.divide(
            100 * (data - mean), mean, out=np.zeros_like(data), where=mean > 100
        )
    return list(images.values())


def effect(run, data, where):
    """Amplitude of the response to hand in some voxels, %."""
    course = course_of(run)
    return float(course @ data[where].mean(0) / (course @ course))


@pytest.fixture
def region():
    """Voxels of the runs that respond to hand."""
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = (-14, -18, -12)  # of `make_bids`
    active = upsampled(regions()["hand"]).astype(np.float32)
    return resample(active, affine_of(), affine, (14, 14, 14), "nearest") > 0


def test_a_pattern_in_one_run_is_in_the_others_and_not_in_itself(tmp_path, region):
    """The run that is imitated never counts: leave-one-out is exact."""
    plain, planted = make_runs(tmp_path / "plain"), make_runs(tmp_path / "planted")
    for one, other in zip(plain, planted, strict=True):
        assert one.bold.read_bytes() == other.bold.read_bytes()
    plant(planted[1], region, 3.0)
    model = model_of()
    before = synthesise(model, plain, tmp_path / "before")
    after = synthesise(model, planted, tmp_path / "after")
    changes = [effect(run, b - a, region) for run, a, b in zip(plain, before, after, strict=True)]
    assert abs(changes[1]) < 1e-3 * abs(changes[0])
    assert min(changes[0], changes[2]) > 0.05


def test_noise_is_that_of_the_other_runs(tmp_path):
    """A fluctuation of half a brain, in one run only: networks of the others, not its own."""
    model = make_model()
    model.noise.signal_per_frame.fill_(0.02)
    model.noise.remainder_signal.fill_(0.02)
    model.response.prior.sd[1] = 1e-6  # a response of their own, but none to speak of
    plain, planted = make_runs(tmp_path / "plain"), make_runs(tmp_path / "planted")
    half = np.zeros((14, 14, 14), bool)
    half[:7] = True
    image = nib.load(planted[1].bold)
    data = image.get_fdata(dtype=np.float32)
    course = np.random.default_rng(0).standard_normal(N_VOLUMES)
    basis = drift_basis(N_VOLUMES, planted[1].t_r, HIGH_PASS)
    course = remove_drift(course[:, None], basis)[:, 0]
    data += half[..., None] * data.mean(3, keepdims=True) * 0.03 * course
    nib.save(nib.Nifti1Image(data.astype(np.float32), image.affine), planted[1].bold)
    before = synthesise(model, plain, tmp_path / "before")
    after = synthesise(model, planted, tmp_path / "after")

    def coupling(data):
        """Variance of the half's mean over the mean variance of its voxels."""
        inside = data[half][data[half].std(1) > 0]
        return float(inside.mean(0).var() / inside.var(1).mean())

    ratios = [coupling(b) / coupling(a) for a, b in zip(before, after, strict=True)]
    assert ratios[1] == pytest.approx(1, abs=0.01)
    assert min(ratios[0], ratios[2]) > 1.5


def test_a_run_alone_has_nobodys_response_and_says_so(tmp_path, caplog):
    runs = make_runs(tmp_path / "bids", runs=("1",))
    with caplog.at_level(logging.INFO):
        synthesise(model_of(), runs, tmp_path / "out")
    assert "no other run; its response is drawn" in caplog.text
    (sidecar,) = (tmp_path / "out").rglob("*_desc-synth_bold.json")
    assert json.loads(sidecar.read_text())["FmrisynthProvenance"]["Individuals"] == "drawn"


@pytest.mark.parametrize("individuals", ["own", "drawn", "group"])
def test_the_sidecar_says_whose_response_a_run_has(tmp_path, individuals):
    runs = make_runs(tmp_path / "bids", runs=("1", "2"))
    synthesise(model_of(), runs, tmp_path / "out", individuals)
    for sidecar in (tmp_path / "out").rglob("*_desc-synth_bold.json"):
        content = json.loads(sidecar.read_text())["FmrisynthProvenance"]
        assert content["Individuals"] == individuals


def test_drawn_participants_differ_and_a_group_does_not(tmp_path, region):
    runs = make_runs(tmp_path / "bids", participants=("01", "02", "03"), runs=("1", "2"))
    spread, within = {}, {}
    for individuals in ("drawn", "group"):
        made = synthesise(model_of(), runs, tmp_path / individuals, individuals)
        sizes = [effect(run, data, region) for run, data in zip(runs, made, strict=True)]
        pairs = np.array(sizes).reshape(3, 2)
        spread[individuals], within[individuals] = np.ptp(pairs.mean(1)), pairs.std(1).max()
    assert spread["drawn"] > 3 * spread["group"]
    assert within["drawn"] < 0.5 * spread["drawn"]


def test_samples_of_a_run_are_other_draws(tmp_path, region):
    runs = make_runs(tmp_path / "bids", runs=("1",))
    made = synthesise(model_of(), runs, tmp_path / "out", "drawn", n_samples=3)
    sizes = [effect(runs[0], data, region) for data in made]
    assert np.ptp(sizes) > 0.1 * abs(np.mean(sizes))


def test_what_runs_say_is_kept_and_a_damaged_file_is_made_anew(tmp_path):
    runs = make_runs(tmp_path / "bids", runs=("1", "2"))
    model, work = model_of(), tmp_path / "work"
    first = synthesise(model, runs, tmp_path / "first", work_dir=work)
    files = sorted(work.rglob("*.npz"))
    assert len(files) == 2
    files[0].write_bytes(b"broken")
    again = synthesise(model, runs, tmp_path / "again", work_dir=work)
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    assert np.load(files[0])["scores"].ndim == 1


def test_a_run_with_unknown_events_says_nothing(tmp_path):
    (run,) = make_runs(tmp_path / "bids", runs=("1",))
    run.events.write_text("onset\tduration\ttrial_type\n4\t6\ttongue\n")
    model = model_of()
    carrier, statistics = SiblingReader(model, model.response.inference(), None).read(run)
    assert statistics is None
    assert carrier.mask.any()


# What a model can do


def test_a_model_without_individual_differences_gives_the_group_and_refuses_more():
    model = make_model()
    assert choose_individuals(None, model) == "group"
    assert choose_individuals("group", model) == "group"
    for wanted in ("own", "drawn"):
        with pytest.raises(UsageError, match="no individual differences"):
            choose_individuals(wanted, model)
    assert choose_individuals(None, model_of()) == "own"
    with pytest.raises(UsageError, match="expected own, drawn, group"):
        choose_individuals("mine", model)
