"""Physiology goes out of the noise where it is known, and takes no response along."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.tiny_model import HIGH_PASS, blocks, make_bold, make_model, make_run

from fmrisynth.preprocess.carrier import split
from fmrisynth.synthesis.noise_sources import quiet_tissue, without_physiology
from fmrisynth.synthesis.synthesiser import Synthesiser

N, QUIET, GREY = 200, 40, 100


@pytest.fixture
def parts():
    """Courses of breath, of a network and of events; noise of voxels; which are quiet."""
    rng = np.random.default_rng(0)
    breath, network, event = rng.standard_normal((3, N))
    noise = 0.3 * rng.standard_normal((N, QUIET + GREY))
    return breath, network, event + 0.5 * breath, noise, np.arange(QUIET + GREY) < QUIET


def test_what_white_matter_fluctuates_by_goes_and_networks_stay(parts):
    breath, network, event, noise, tissue = parts
    series = noise + breath[:, None] + ~tissue * (network + event)[:, None]
    left = without_physiology(series, tissue, event[:, None])
    before, after = (x[:, ~tissue].mean(axis=1) for x in (series, left))
    breath, network = (x - event * (event @ x) / (event @ event) for x in (breath, network))
    assert np.corrcoef(before, breath)[0, 1] > 0.3
    assert abs(np.corrcoef(after, breath)[0, 1]) < 0.1
    own = [np.cov(x, network)[0, 1] / network.var() for x in (before, after)]
    assert own[1] == pytest.approx(own[0], rel=0.15)


def test_effects_of_events_are_what_they_were(parts):
    breath, _, event, noise, tissue = parts
    series = noise + breath[:, None] + ~tissue * event[:, None]
    left = without_physiology(series, tissue, event[:, None])
    np.testing.assert_allclose(event @ left, event @ series, atol=1e-3)


def test_without_tissue_or_events(parts):
    breath, _, _, noise, tissue = parts
    series = noise + breath[:, None]
    assert without_physiology(series, ~tissue & tissue, np.zeros((N, 0))) is series
    left = without_physiology(series, tissue, np.zeros((N, 0)))
    assert left.std() < 0.5 * series.std()


def test_runs_without_physiology_have_the_same_response(caplog, monkeypatch):
    model, bold = make_model(), make_bold(40)
    carrier, _ = split(bold, HIGH_PASS)
    run = make_run(n_volumes=40, t_r=bold.t_r)
    tissue = np.arange(carrier.mask.sum()) % 3 == 0
    monkeypatch.setattr("fmrisynth.synthesis.synthesiser.quiet_tissue", lambda *_: tissue)
    default = replace(model.info.config.sampling, decoder_noise=False)
    spread = []
    for sampling in (default, replace(default, physiology=False)):
        made = Synthesiser(model, sampling).synthesise(
            run, carrier, carrier.noise_sd, blocks("hand", "foot"), seed=1, participant=0
        )
        spread.append(made[carrier.mask].std(axis=-1).mean())
    assert 0 < spread[1] < spread[0]


def test_unknown_tissue_is_said(caplog):
    run = make_run(space="T1w", bold=Path("ds/sub-01/func/sub-01_task-motor_bold.nii.gz"))
    mask = np.ones(run.shape, dtype=bool)
    assert not quiet_tissue(run, mask).any()
    assert "physiology stays in the noise" in caplog.text
