"""Second-level t and z equal those of scipy and nilearn."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pandas as pd
from nilearn.glm.second_level import SecondLevelModel
from scipy import stats

from fmrisynth.evaluation.measures.second_level import one_sample_t, z_map


def test_z_maps_are_nilearn_s_and_t_is_scipy_s():
    rng = np.random.default_rng(0)
    mask = np.ones((4, 5, 6), dtype=bool)
    mask[0, 0, 0] = False
    maps = rng.normal(0.5, 1.0, (5, mask.sum())).astype(np.float32)
    missing = np.concatenate([maps, np.full((1, maps.shape[1]), np.nan)])
    t = stats.ttest_1samp(maps, 0.0).statistic
    np.testing.assert_allclose(one_sample_t(maps), t, rtol=1e-4)
    z = z_map(missing, mask, np.eye(4))
    np.testing.assert_allclose(stats.norm.sf(z), stats.t.sf(t, 4), rtol=1e-2)
    images = []
    for effect in maps:
        volume = np.zeros(mask.shape, dtype=np.float32)
        volume[mask] = effect
        images.append(nib.Nifti1Image(volume, np.eye(4)))
    model = SecondLevelModel(mask_img=nib.Nifti1Image(mask.astype(np.uint8), np.eye(4)))
    model.fit(images, design_matrix=pd.DataFrame({"intercept": np.ones(5)}))
    expected = model.compute_contrast("intercept", output_type="z_score").get_fdata()[mask]
    np.testing.assert_allclose(z, expected, atol=1e-4)
    assert np.isnan(z_map(maps[:1], mask, np.eye(4))).all()


def test_doubled_participants_count_twice():
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(3, 40))
    drawn = one_sample_t(maps, np.array([2, 1, 0]))
    np.testing.assert_allclose(drawn, one_sample_t(maps[[0, 0, 1]]), rtol=1e-6)
