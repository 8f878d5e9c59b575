"""Key random numbers by what they are for, so that a draw depends on its own name alone.

Adding a generator, a metric or a run must change no number of another one:
nothing shares a stream of random numbers with anything else.
"""

from __future__ import annotations

import hashlib

import numpy as np

__all__ = ["keyed_generator", "keyed_seed"]


def keyed_seed(seed: int, *key: object) -> int:
    """Derive a seed from the user's seed and a key.

    Parameters
    ----------
    seed : int
        The user's seed.
    *key : object
        What the random numbers are for; its ``repr`` counts, so use text and numbers.

    Returns
    -------
    int
        From 0 to 2⁶³ − 1; the same on every machine.
    """
    digest = hashlib.sha256(repr((seed, *key)).encode("utf-8", errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def keyed_generator(seed: int, *key: object) -> np.random.Generator:
    """Make a generator of random numbers from the user's seed and a key.

    Parameters
    ----------
    seed, *key
        As for `keyed_seed`.

    Returns
    -------
    numpy.random.Generator
    """
    return np.random.default_rng(keyed_seed(seed, *key))
