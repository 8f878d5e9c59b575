"""Volumes per second through the VQ-GAN and through MONAI's VQVAE.

Both have the same number of parameters in encoder and decoder, the same factor,
latent channels, batch and precision, and take turns in one process. Encoding is
volume to continuous latents, decoding is latents to volume: quantisation, of
which each has its own kind, is not timed. Their arithmetic is not the same:
MONAI's first layer halves the resolution, the paper's VQ-GAN convolves at full
resolution; operations are counted beside the parameters.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from measuring import in_turns, size, spread
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fmrisynth.config.autoencoder import VQGANConfig
from fmrisynth.config.presets import PRESETS
from fmrisynth.model.autoencoder.vqgan import VQGAN

RESIDUAL_LAYERS = 3  # the library's default

CONVOLUTIONAL = tuple(name for name, config in PRESETS.items() if config.autoencoder.convolutional)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--presets", nargs="+", default=["scaled-38m"], choices=CONVOLUTIONAL)
    parser.add_argument("--grid", nargs=3, type=int, default=(48, 56, 48), metavar="N")
    parser.add_argument("--batch", type=int, default=1, help="volumes at once")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--precisions", nargs="+", default=["32", "bf16"], choices=("32", "bf16"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def monai_vqvae(config: VQGANConfig, target: int) -> Any:
    """MONAI's network of that factor whose width comes nearest to a number of parameters."""
    levels = config.factor.bit_length() - 1

    def of_width(width: int) -> Any:
        from monai.networks.nets import VQVAE

        channels = tuple(width * min(2, level + 1) for level in range(levels))
        return VQVAE(
            spatial_dims=3,
            in_channels=config.in_channels,
            out_channels=config.in_channels,
            channels=channels,
            num_res_channels=channels,
            num_res_layers=RESIDUAL_LAYERS,
            downsample_parameters=((2, 4, 1, 1),) * levels,
            upsample_parameters=((2, 4, 1, 1, 0),) * levels,
            num_embeddings=config.codebook_size,
            embedding_dim=config.latent_channels,
        )

    def distance(width: int) -> int:
        with torch.device("meta"):
            return abs(coding_size(of_width(width)) - target)

    return of_width(min(range(4, 257, 2), key=distance))


def coding_size(network: nn.Module) -> int:
    """Parameters of encoder and decoder, without the codebook."""
    parts = dict(network.named_children())
    return sum(size(part) for name, part in parts.items() if not name.startswith("quantize"))


def compare(options: argparse.Namespace, preset: str, precision: str) -> None:
    config, device = PRESETS[preset].autoencoder, options.device
    torch.manual_seed(0)
    ours = VQGAN(config)
    networks: dict[str, Any] = {"ours": ours, "monai": monai_vqvae(config, coding_size(ours))}
    latent = tuple(n // config.factor for n in options.grid)
    x = torch.randn(options.batch, config.in_channels, *options.grid, device=device)
    print(
        f"{preset}, {options.batch} volumes of {tuple(options.grid)}, factor {config.factor}, "
        f"{config.latent_channels} channels, {precision} on {device}, "
        f"{torch.get_num_threads()} threads"
    )
    encode, decode = {}, {}
    for name, network in networks.items():
        network.to(device).eval()
        z = torch.randn(options.batch, config.latent_channels, *latent, device=device)
        encode[name] = precisely(network.encode, x, precision)
        decode[name] = precisely(network.decode, z, precision)
        shapes = encode[name]().shape, decode[name]().shape
        assert shapes == (z.shape, x.shape), f"{name} gives {shapes}"
        work = [operations(call) / options.batch for call in (encode[name], decode[name])]
        print(
            f"  {name}: {coding_size(network) / 1e6:.2f}M parameters, "
            f"{work[0] / 1e9:.2f} and {work[1] / 1e9:.2f} GFLOP a volume"
        )
    for kind, calls in (("encode", encode), ("decode", decode)):
        spent = in_turns(calls, options.repeats, device)
        for name, values in spent.items():
            rates = [options.batch / value for value in values]
            print(f"  {kind} {name:6s} {spread(rates)} volumes/s")
        ratio = statistics.median(spent["monai"]) / statistics.median(spent["ours"])
        print(f"  {kind} ours / monai = {ratio:.2f}")


def operations(call: Callable[[], object]) -> int:
    """Floating-point operations of a call."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def precisely(
    call: Callable[[torch.Tensor], torch.Tensor], value: torch.Tensor, precision: str
) -> Callable[[], torch.Tensor]:
    """Return a call without gradients, in a precision."""

    def autocast() -> AbstractContextManager[object]:
        return torch.autocast(value.device.type, torch.bfloat16, enabled=precision == "bf16")

    def called() -> torch.Tensor:
        with torch.inference_mode(), autocast():
            return call(value)

    return called


def main() -> None:
    options = arguments()
    for preset in options.presets:
        for precision in options.precisions:
            compare(options, preset, precision)


if __name__ == "__main__":
    main()
