r"""Draw traits, which drive a participant's anatomy, networks and responses together.

A participant has a few traits :math:`\tau \sim N(0, I)`. Whatever differs between participants
is, in part, a linear function of them:

.. math::

    d = s \Big[ \rho \sum_k \tau_k P_k / \sqrt{K} + \sqrt{1 - \rho^2}\, \epsilon \Big]

with the SD :math:`s` between participants, the population's patterns :math:`P_k` (of unit
variance, the same in every cohort), a part :math:`\epsilon` of the participant's own, and
:math:`\rho = .6`. Anatomy, connectivity and response therefore predict each other, but not
exactly.
"""

from __future__ import annotations

import numpy as np

__all__ = ["COUPLING", "N_TRAITS", "couple", "draw_traits", "trait_fields", "trait_patterns"]

N_TRAITS = 3
COUPLING = 0.6  # ρ

_POPULATION_KEY = 20240611
_WAVES = 16  # per field


def draw_traits(rng: np.random.Generator) -> np.ndarray:
    """Draw the traits τ of one participant, (N_TRAITS,)."""
    return rng.standard_normal(N_TRAITS)


def trait_patterns(shape: tuple[int, ...], key: int) -> np.ndarray:
    """Return the population's patterns P of unit variance, (N_TRAITS, *shape).

    Parameters
    ----------
    shape : tuple of int
        Shape of the quantity that the traits drive.
    key : int
        Tells quantities of one shape apart.
    """
    rng = np.random.default_rng([_POPULATION_KEY, key])
    return rng.standard_normal((N_TRAITS, *shape))


def trait_fields(coordinates: np.ndarray, n_fields: int, wavelength: float, key: int) -> np.ndarray:
    """Return the population's smooth patterns P of unit variance at positions in mm.

    Sums of plane waves: they do not depend on the grid.

    Parameters
    ----------
    coordinates : ndarray of shape (3, …)
        Positions in mm.
    n_fields : int
        Fields per trait.
    wavelength : float
        Typical wavelength in mm.
    key : int
        Tells quantities apart.

    Returns
    -------
    ndarray of shape (N_TRAITS, n_fields, …), float32
    """
    rng = np.random.default_rng([_POPULATION_KEY, key])
    vectors = rng.standard_normal((N_TRAITS, n_fields, _WAVES, 3)) * (2.0 * np.pi / wavelength)
    phases = rng.uniform(0.0, 2.0 * np.pi, (N_TRAITS, n_fields, _WAVES))
    fields = np.zeros((N_TRAITS, n_fields, *coordinates.shape[1:]), np.float32)
    for trait, field, wave in np.ndindex(phases.shape):
        x, y, z = vectors[trait, field, wave].astype(np.float32)
        angle = x * coordinates[0] + y * coordinates[1] + z * coordinates[2]
        fields[trait, field] += np.cos(angle + np.float32(phases[trait, field, wave]))
    return fields * np.float32(np.sqrt(2.0 / _WAVES))


def couple(traits: np.ndarray, patterns: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Return ρ Σ_k τ_k P_k / √K + √(1 − ρ²) ε.

    Parameters
    ----------
    traits : ndarray of shape (N_TRAITS,)
        τ.
    patterns : ndarray of shape (N_TRAITS, …)
        P.
    own : ndarray of shape (…)
        ε, of unit variance.
    """
    shared = sum(
        np.float32(trait) * pattern for trait, pattern in zip(traits, patterns, strict=True)
    )
    return COUPLING / np.sqrt(N_TRAITS) * shared + np.sqrt(1.0 - COUPLING**2) * own
