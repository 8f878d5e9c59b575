"""Draw heads: the template's tissues, a participant's own form of them, and their EPI images.

The tissues are those of nilearn's bundled MNI152 (the symmetric 2009a version), which has no
skull; outside the brain and its blurred rim the images are empty.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage

from fmrisynth.phantom.fields import Grid, SplineLattice, random_fields
from fmrisynth.phantom.traits import couple, trait_fields

__all__ = ["DIRECTIONS", "Anatomy", "Head", "Template", "draw_anatomy", "image_head"]

# Phase-encoding direction → (sign of the shift along +y, BIDS PhaseEncodingDirection).
DIRECTIONS = {"AP": (-1.0, "j-"), "PA": (1.0, "j")}

# Brightness ρ of the tissues in a T2*-weighted image, grey matter = 1.
_BRIGHTNESS = {"grey": 1.0, "white": 0.86, "csf": 1.25}

_WARP_SD, _WARP_KNOTS = 3.0, 40.0  # mm per axis; mm between knots
_TRAIT_WAVELENGTH = 150.0  # mm; of the forms that go with traits
_BIAS_SD, _BIAS_KNOTS = 0.04, 70.0  # of log intensity; mm
_GAIN_SD = 0.03  # of log intensity
_SHIFT_SD, _SHIFT_KNOTS = 0.6, 50.0  # mm; the participant's own part of the shift

# Where air meets tissue: centre (mm), SD (mm), shift along y (mm), log signal lost.
_AIR = (
    ((0.0, 42.0, -24.0), 18.0, 6.0, 0.6),  # frontal sinus
    ((46.0, -18.0, -32.0), 13.0, -4.0, 0.3),  # right ear canal
    ((-46.0, -18.0, -32.0), 13.0, -4.0, 0.3),  # left ear canal
)


@dataclass(frozen=True)
class Template:
    """Tissue probabilities of the template.

    Attributes
    ----------
    tissues : ndarray of shape (4, X, Y, Z), float32
        Grey matter, white matter, cerebrospinal fluid and all of the brain, from 0 to 1.
    affine : ndarray of shape (4, 4)
        Diagonal, mm.
    """

    tissues: np.ndarray
    affine: np.ndarray

    @staticmethod
    @lru_cache(maxsize=2)
    def load(voxel_size: float) -> Template:
        """Load nilearn's maps at 2 mm, blurred to what a voxel of `voxel_size` mm sees."""
        from nilearn import datasets

        grey_image = datasets.load_mni152_gm_template(resolution=2)
        grey = grey_image.get_fdata(dtype=np.float32)
        white = datasets.load_mni152_wm_template(resolution=2).get_fdata(dtype=np.float32)
        brain = datasets.load_mni152_brain_mask(resolution=2).get_fdata(dtype=np.float32)
        csf = np.clip(brain - grey - white, 0.0, 1.0)
        tissues = np.stack([grey, white, csf, brain]).astype(np.float32)
        blur = 0.35 * voxel_size / 2.0  # SD in template voxels; a box of one voxel has SD 0.29
        for tissue in tissues:
            ndimage.gaussian_filter(tissue, blur, output=tissue)
        return Template(np.clip(tissues, 0.0, 1.0), np.asarray(grey_image.affine))

    def sample(self, position: np.ndarray) -> np.ndarray:
        """Interpolate the tissues at `position` (3, …) in mm; returns (4, …)."""
        origin = self.affine[:3, 3].reshape(3, *[1] * (position.ndim - 1))
        step = np.diag(self.affine)[:3].reshape(origin.shape)
        index = ((position - origin) / step).astype(np.float32)
        return np.stack([ndimage.map_coordinates(t, index, order=1) for t in self.tissues])


@dataclass(frozen=True)
class Anatomy:
    """What makes a participant's head and its images different from the template.

    Attributes
    ----------
    warp : ndarray of shape (3, Z, Y, X)
        w_p in mm: template position minus voxel position.
    log_bias : ndarray of shape (Z, Y, X)
        Logarithm of gain times receive bias.
    shift : ndarray of shape (Z, Y, X)
        u_p in mm along y.
    air : ndarray of shape (3,)
        Strength of each of the susceptibility sources against the average.
    """

    warp: np.ndarray
    log_bias: np.ndarray
    shift: np.ndarray
    air: np.ndarray


@dataclass(frozen=True)
class Head:
    """A participant as imaged with one phase-encoding direction, at the voxels of the head.

    Attributes
    ----------
    index : ndarray of shape (V,)
        Places of the head's voxels in the flattened (Z, Y, X) grid.
    position : ndarray of shape (3, V)
        q(x): template position of each voxel in mm.
    mean : ndarray of shape (V,)
        S(x): signal without fluctuation, about 1 in grey matter.
    gradient : ndarray of shape (3, V)
        Change of S per mm along x, y and z.
    grey, csf, brain : ndarray of shape (V,)
        Probability of grey matter, of cerebrospinal fluid and of the brain.
    """

    index: np.ndarray
    position: np.ndarray
    mean: np.ndarray
    gradient: np.ndarray
    grey: np.ndarray
    csf: np.ndarray
    brain: np.ndarray

    @property
    def mask(self) -> np.ndarray:
        """The brain's voxels among those of the head, (V,) bool."""
        return self.brain > 0.5


def draw_anatomy(grid: Grid, rng: np.random.Generator, traits: np.ndarray | None = None) -> Anatomy:
    """Draw a participant's form, bias field and susceptibility shift.

    Parameters
    ----------
    grid : Grid
        Voxels.
    rng : numpy.random.Generator
        Draws what is the participant's own.
    traits : ndarray of shape (N_TRAITS,), optional
        Traits that drive a part of the form.
    """
    form = random_fields(SplineLattice(grid, _WARP_KNOTS), 3, rng)
    if traits is not None:
        form = couple(traits, _trait_forms(grid), form).astype(np.float32)
    warp = _WARP_SD * form
    bias = _BIAS_SD * random_fields(SplineLattice(grid, _BIAS_KNOTS), 1, rng)[0]
    air = np.exp(0.25 * rng.standard_normal(len(_AIR)))
    shift = _SHIFT_SD * random_fields(SplineLattice(grid, _SHIFT_KNOTS), 1, rng)[0]
    x = grid.coordinates() + warp
    for strength, (centre, sd, height, _) in zip(air, _AIR, strict=True):
        shift += strength * height * _bump(x, centre, sd)
    return Anatomy(warp, bias + _GAIN_SD * rng.standard_normal(), shift, air)


@lru_cache(maxsize=1)
def _trait_forms(grid: Grid) -> np.ndarray:
    """Return the change of form that goes with each trait, (N_TRAITS, 3, Z, Y, X)."""
    return trait_fields(grid.coordinates(), 3, _TRAIT_WAVELENGTH, 6)


def image_head(template: Template, grid: Grid, anatomy: Anatomy, direction: str) -> Head:
    """Form the participant's mean image in one phase-encoding direction ("AP" or "PA")."""
    sign = DIRECTIONS[direction][0]
    # q(x) = x + w_p(x) + s_d u_p(x) e_y
    position = grid.coordinates() + anatomy.warp
    position[1] += sign * anatomy.shift
    tissues = template.sample(position)
    grey, _, csf, brain = tissues
    # S(x) = g_p B_p D_p (1 + s_d ∂u_p/∂y) Σ_j ρ_j P_j(q)
    signal = np.tensordot(np.array(list(_BRIGHTNESS.values()), np.float32), tissues[:3], axes=1)
    stretch = 1.0 + sign * np.gradient(anatomy.shift, grid.voxel_size, axis=1)
    loss = sum(
        strength * log_loss * _bump(position, centre, sd)
        for strength, (centre, sd, _, log_loss) in zip(anatomy.air, _AIR, strict=True)
    )
    signal = signal * np.clip(stretch, 0.3, 2.0) * np.exp(anatomy.log_bias - loss)
    index = np.flatnonzero(brain > 0.1)
    gradient = np.stack(np.gradient(signal, grid.voxel_size)[::-1])
    return Head(
        index=index,
        position=position.reshape(3, -1)[:, index],
        mean=signal.ravel()[index].astype(np.float32),
        gradient=gradient.reshape(3, -1)[:, index].astype(np.float32),
        grey=grey.ravel()[index],
        csf=csf.ravel()[index],
        brain=brain.ravel()[index],
    )


def _bump(position: np.ndarray, centre: tuple[float, float, float], sd: float) -> np.ndarray:
    """Return a Gaussian of height 1 around `centre`, at `position` (3, …) in mm."""
    offset = position - np.asarray(centre, np.float32).reshape(3, *[1] * (position.ndim - 1))
    return np.exp(-np.square(offset).sum(axis=0) / (2.0 * sd**2)).astype(np.float32)
