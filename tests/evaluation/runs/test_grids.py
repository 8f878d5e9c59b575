"""Labels on other grids."""

from __future__ import annotations

import numpy as np

from fmrisynth.evaluation.runs.grids import labels_on


def test_labels_move_to_another_grid_by_the_nearest_voxel():
    labels = np.arange(1, 9, dtype=np.int32).reshape(2, 2, 2)
    affine = np.diag([10.0, 10.0, 10.0, 1.0])
    fine = np.diag([5.0, 5.0, 5.0, 1.0])
    moved = labels_on(labels, affine, fine, (6, 4, 4))
    assert moved[0, 0, 0] == 1
    assert moved[2, 0, 0] == labels[1, 0, 0]
    assert (moved[4:] == 0).all()  # beyond the atlas
