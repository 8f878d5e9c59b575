"""The codec of whole runs: pieces of any number, units, and the inverse."""

import numpy as np
import pytest
import torch
from support.tiny_model import LATENT, SHAPE, make_model, upsampled

from fmrisynth.model.codec import VOLUMES_AT_ONCE, decode_run, encode_run


@pytest.fixture(scope="module")
def autoencoder():
    """Latents are means of 2³ blocks; decoding repeats them."""
    return make_model().autoencoder


BRAIN = np.ones(SHAPE, bool)


def volumes(count):
    return np.random.default_rng(0).standard_normal((count, *SHAPE)).astype(np.float16)


@pytest.mark.parametrize("count", [1, VOLUMES_AT_ONCE, 2 * VOLUMES_AT_ONCE + 3])
def test_a_run_is_encoded_volume_by_volume(autoencoder, count):
    frames = volumes(count)
    latents = encode_run(autoencoder, frames, 2.0, BRAIN)
    assert latents.shape == (count, 1, *LATENT)
    for index in (0, count // 2, count - 1):
        alone = encode_run(autoencoder, frames[index : index + 1], 2.0, BRAIN)
        np.testing.assert_allclose(latents[index], alone[0], rtol=1e-5, atol=1e-6)


def test_decoding_inverts_encoding_in_the_unit_of_the_volumes(autoencoder):
    blocks = np.random.default_rng(1).standard_normal((20, *LATENT))
    frames = np.stack([upsampled(block) for block in blocks]).astype(np.float32)
    latents = torch.from_numpy(encode_run(autoencoder, frames, 3.0, BRAIN))
    np.testing.assert_allclose(decode_run(autoencoder, latents, 3.0, BRAIN), frames, atol=1e-4)
    np.testing.assert_allclose(decode_run(autoencoder, latents, 6.0, BRAIN), 2 * frames, atol=1e-4)


def test_the_brains_edge_is_decoded_with_the_amplitude_that_it_has(autoencoder):
    """A block of which a quarter is brain keeps the mean of the quarter."""
    brain = np.zeros(SHAPE, bool)
    brain[4:9, 4:8, 4:8] = True  # the last plane alone of the second block along x
    frames = np.where(brain, 2.5, 0.0)[None].astype(np.float32)
    latents = torch.from_numpy(encode_run(autoencoder, frames, 1.0, brain))
    decoded = decode_run(autoencoder, latents, 1.0, brain)[0]
    np.testing.assert_allclose(decoded[brain], 2.5, rtol=1e-4)
    # a participant's brain may reach further than that of the group
    np.testing.assert_allclose(decoded[8:10, 4:8, 4:8], 2.5, rtol=1e-4)
    assert not decoded[:2].any()
    unmasked = np.where(brain, frames, 7.0)  # what lies outside is not looked at
    np.testing.assert_array_equal(encode_run(autoencoder, unmasked, 1.0, brain), latents)


def test_a_run_that_covers_half_of_the_brain_keeps_its_amplitude_there(autoencoder):
    frames = np.full((2, *SHAPE), 2.5, np.float32)
    frames[:, 5:] = 0  # half of a block
    latents = torch.from_numpy(encode_run(autoencoder, frames, 1.0, BRAIN))
    decoded = decode_run(autoencoder, latents, 1.0, BRAIN)
    np.testing.assert_allclose(decoded[:, :5], 2.5, rtol=1e-4)
