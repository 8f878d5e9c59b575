"""Sites of the phantom: what differs between them, and what does not."""

import json

import nibabel as nib
import numpy as np
import pytest

from fmrisynth.errors import UsageError
from fmrisynth.phantom import PhantomConfig, simulate_cohort
from fmrisynth.phantom.scanner import scan_at_site
from fmrisynth.phantom.simulation import Population, draw_participant


def config_of(**more):
    return PhantomConfig(1, 16, voxel_size=12.0, tasks=("MOTOR",), **more)


@pytest.mark.parametrize("voxel_size", [3.0, 5.0])
def test_of_one_seed_the_same_participants_come_to_every_site(voxel_size):
    drawn = [
        draw_participant(Population.build(PhantomConfig(1, tasks=("WM",), voxel_size=size)), 0)
        for size in (4.0, voxel_size)
    ]
    assert drawn[0].response.latency == drawn[1].response.latency
    np.testing.assert_array_equal(drawn[0].response.gain, drawn[1].response.gain)
    np.testing.assert_array_equal(drawn[0].connectivity.mixing, drawn[1].connectivity.mixing)


@pytest.mark.parametrize("realism", ["gaussian", "full"])
def test_a_site_delays_responses_and_stretches_distortions(realism):
    from fmrisynth.phantom.cohort import MODELS

    config = config_of(hrf_delay=0.7, distortion=2.0, realism=realism)
    draw = MODELS[realism][0]
    own = draw(Population.build(config), 0)
    there = scan_at_site(own, config)
    assert there.response.latency == pytest.approx(own.response.latency + 0.7)
    assert there.response is getattr(there, "regional", there.response)
    np.testing.assert_allclose(there.anatomy.shift, 2 * own.anatomy.shift)
    np.testing.assert_array_equal(there.anatomy.warp, own.anatomy.warp)


def test_a_site_is_in_the_files(tmp_path):
    means = {}
    for name, more in (("plain", {}), ("Elsewhere", {"site": "Elsewhere", "intensity": 0.1})):
        root = simulate_cohort(tmp_path / name, config_of(**more), progress=False)
        sidecar = json.loads(next(root.glob("sub-*/func/*AP_bold.json")).read_text())
        assert sidecar.get("InstitutionName") == more.get("site")
        described = json.loads((root / "dataset_description.json").read_text())
        assert ("Elsewhere" in described["Name"]) is bool(more)
        means[name] = np.mean(nib.load(next(root.glob("sub-*/func/*AP_bold.nii.gz"))).get_fdata())
        truth = root / "derivatives" / "truth" / "config.json"
        assert ("site" in json.loads(truth.read_text())) is bool(more)
    assert means["Elsewhere"] == pytest.approx(0.1 * means["plain"], rel=1e-3)


@pytest.mark.parametrize("wrong", [{"hrf_delay": 9.0}, {"distortion": -1.0}, {"intensity": 0.0}])
def test_impossible_sites_are_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        config_of(**wrong)
