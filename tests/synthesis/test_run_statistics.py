"""What runs say of their participants is kept in files, and read from them."""

import numpy as np
import pytest
import torch

from fmrisynth.model.individuals import Evidence
from fmrisynth.model.noise.protocol import RunNoise, VoxelNoise
from fmrisynth.synthesis.run_statistics import RunStatistics

EVIDENCE = Evidence(torch.eye(3), torch.arange(3.0))
VOXELS = VoxelNoise(0.25, (6.0, 5.0, 0.0), 0.5)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.npz"


def noise(voxels):
    return RunNoise(torch.ones(4, 2).half(), torch.ones(1, 5).half(), torch.ones(3), voxels)


def test_what_is_written_is_read(path):
    RunStatistics(EVIDENCE, noise(VOXELS)).save(path)
    read = RunStatistics.load(path)
    assert torch.equal(read.response.moments, EVIDENCE.moments)
    assert torch.equal(read.noise.courses, noise(VOXELS).courses)
    assert read.noise.voxels == VOXELS


def test_a_run_whose_noise_says_nothing_is_read(path):
    RunStatistics(EVIDENCE, None).save(path)
    assert RunStatistics.load(path).noise is None


@pytest.mark.parametrize("content", ["of another version", "not an archive", None])
def test_what_cannot_be_used_is_measured_again(path, content):
    if content == "of another version":
        RunStatistics(EVIDENCE, noise(None)).save(path)
        with np.load(path) as file:
            arrays = dict(file)
        np.savez(path, voxels=np.ones(4), **arrays)
    elif content is not None:
        path.write_text(content)
    assert RunStatistics.load(path) is None
