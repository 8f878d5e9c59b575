"""The model grid of a training: what is said of images that are coarse."""

import logging
from dataclasses import replace

import pytest

from fmrisynth.bids.search import find_runs
from fmrisynth.config.presets import PRESETS
from fmrisynth.training.prepare import _choose_grid

DEMO = PRESETS["demo"]


@pytest.mark.parametrize(
    ("voxel_size", "patch", "said"), [(4, 4, False), (10, 4, True), (10, 2, False)]
)
def test_who_has_coarse_images_is_told_of_smaller_patches(
    tiny_bids, caplog, voxel_size, patch, said
):
    config = replace(
        DEMO,
        preprocess=replace(DEMO.preprocess, voxel_size=float(voxel_size)),
        autoencoder=replace(DEMO.autoencoder, patch=patch),
    )
    with caplog.at_level(logging.INFO):
        _choose_grid(find_runs(tiny_bids).runs, config)
    assert ("a cube of 40 mm" in caplog.text) == said
    assert ("--set autoencoder.patch=2" in caplog.text) == said
