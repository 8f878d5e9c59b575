"""Volumes per second through the VQ-GAN and through MONAI's VQVAE.

Both have the same number of parameters in encoder and decoder, the same factor,
latent channels, batch and precision, and take turns in one process; beside an
autoencoder of principal components, which has fewer, stands MONAI's narrowest. Encoding is
volume to continuous latents, decoding is latents to volume: quantisation, of
which each has its own kind, is not timed. Their arithmetic is not the same:
MONAI's first layer halves the resolution, the paper's VQ-GAN convolves at full
resolution; operations are counted beside the parameters. The ratio is of times:
above 1, fmrisynth is the faster.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from measuring import head, in_turns, machine, paired_ratio, row, size, spread
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fmrisynth.config.autoencoder import VQGANConfig
from fmrisynth.config.presets import PRESETS
from fmrisynth.model.autoencoder.vqgan import VQGAN

RESIDUAL_LAYERS = 3  # the library's default


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--presets", nargs="+", default=["small", "scaled-38m", "paper-38m"], choices=PRESETS
    )
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


def compare(options: argparse.Namespace, preset: str, precision: str) -> list[str]:
    """Rows of the table of one preset."""
    config, device = PRESETS[preset].autoencoder, options.device
    torch.manual_seed(0)
    ours = VQGAN(config)
    networks: dict[str, Any] = {"ours": ours, "monai": monai_vqvae(config, coding_size(ours))}
    latent = tuple(n // config.factor for n in options.grid)
    x = torch.randn(options.batch, config.in_channels, *options.grid, device=device)
    encode, decode = {}, {}
    for name, network in networks.items():
        network.to(device).eval()
        z = torch.randn(options.batch, config.latent_channels, *latent, device=device)
        encode[name] = precisely(network.encode, x, precision)
        decode[name] = precisely(network.decode, z, precision)
        shapes = encode[name]().shape, decode[name]().shape
        assert shapes == (z.shape, x.shape), f"{name} gives {shapes}"
    sizes = " / ".join(f"{coding_size(network) / 1e6:.2f}" for network in networks.values())
    rows = []
    for kind, calls in (("encode", encode), ("decode", decode)):
        work = {name: operations(call) / options.batch for name, call in calls.items()}
        spent = in_turns(calls, options.repeats, device)
        cells = [
            [
                spread([options.batch / value for value in turns.clock]),
                f"{statistics.median(turns.cpu) / options.batch:.3g}",
                f"{work[name] / 1e9:.1f}",
            ]
            for name, turns in spent.items()
        ]
        rows.append(
            row(
                preset, sizes, precision, kind, *cells[0], *cells[1],
                paired_ratio(spent["monai"].clock, spent["ours"].clock),
                paired_ratio(spent["monai"].cpu, spent["ours"].cpu),
            )
        )  # fmt: skip
        print(rows[-1], flush=True)
    return rows


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
    print(machine(options.device))
    print(f"{options.batch} volumes of {tuple(options.grid)} at once on {options.device}\n")
    rows = []
    for preset in options.presets:
        for precision in options.precisions:
            rows += compare(options, preset, precision)
    columns = [
        column
        for name in ("fmrisynth", "MONAI")
        for column in (f"{name}: volumes/s", "CPU s a volume", "GFLOP a volume")
    ]
    print()
    print(
        head(
            "preset", "parameters, million", "precision", "call", *columns, "MONAI / fmrisynth",
            "the same of CPU time",
        )
    )  # fmt: skip
    print("\n".join(rows))


if __name__ == "__main__":
    main()
