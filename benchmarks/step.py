"""One training step and one denoising call: this project's backbone against MONAI's.

Both have the same number of parameters, latents, condition, batch, precision
and optimiser, and take turns in one process. What each reaches of the machine's
measured matrix-product rate is printed beside the ratio.
"""

from __future__ import annotations

import argparse
import gc
import statistics
from collections.abc import Callable
from dataclasses import replace

import torch
from measuring import GIB, head, in_turns, machine, paired_ratio, row, seconds, size
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from fmrisynth.config.codec import override
from fmrisynth.config.presets import PRESETS
from fmrisynth.model.denoiser.conditioning import Condition, Vocabulary
from fmrisynth.model.denoiser.denoiser import Denoiser
from fmrisynth.training.diffusion_loss import diffusion_loss

TASKS = ("emotion", "gambling", "language", "motor", "relational", "social", "wm")
VOCABULARY = Vocabulary(tuple((task, "active") for task in TASKS), TASKS, ("LR", "RL"), (), 28)
SCALED = tuple(name for name in PRESETS if name.startswith("scaled-"))
PASSES = {"denoise": 1, "train": 3}  # backward is twice the forward
WAYS = {"ours": "fmrisynth", "monai": "MONAI"}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--presets", nargs="+", default=SCALED, choices=PRESETS)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--grid", type=int, default=24, help="latent voxels along each axis")
    parser.add_argument("--batch", type=int, default=1, help="windows at once")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--precision", choices=("32", "bf16"), default="bf16")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", choices=tuple(PASSES))
    parser.add_argument(
        "--compile", choices=("default", "reduce-overhead"),
        help="let torch.compile make the kernels of both networks, in this mode",
    )  # fmt: skip
    return parser.parse_args()


def make(
    options: argparse.Namespace, preset: str, device: str
) -> tuple[dict[str, Denoiser], torch.Tensor, Condition]:
    """Both denoisers, latents and conditions, on a device ("meta" to count alone)."""
    config = override(PRESETS[preset], dict(item.split("=", 1) for item in options.set))
    diffused = config.denoiser
    patch, channels = config.autoencoder.factor, config.autoencoder.latent_channels
    frames, n, batch = diffused.n_frames, options.grid, options.batch
    monai = replace(diffused.backbone, architecture="monai")
    chosen = replace(diffused, backbone=monai, mode_width=0)
    modes = diffused.noise_modes if diffused.reads_modes else 0
    length, edge = VOCABULARY.longest_history + frames, n * patch
    with torch.device(device):
        mask = torch.ones(n, n, n, dtype=torch.bool)
        ours = Denoiser(diffused, VOCABULARY, channels, mask, patch)
        theirs = Denoiser(chosen, VOCABULARY, channels, mask, patch)
        x = torch.randn(batch, frames, channels, n, n, n)
        condition = Condition(
            attributes=torch.ones(batch, 3, dtype=torch.int64) * torch.tensor([1, 1, 0]),
            t_r=torch.full((batch,), 0.72),
            frames=torch.randn(batch, length, len(TASKS) * 3),
            times=torch.arange(length).expand(batch, -1) * 0.72,
            valid=torch.ones(batch, length, dtype=torch.bool),
            evoked=torch.zeros(batch, frames, len(TASKS), 2),
            anatomy=torch.randn(batch, 2, edge, edge, edge),
            condition_mask=torch.ones(batch),
            anatomy_mask=torch.ones(batch),
            mode_sd=torch.ones(batch, modes),
        )
        if ours.mode_head is not None:
            ours.mode_head.attach(torch.randn(modes, channels, n, n, n) / (channels * n**3) ** 0.5)
    return {"ours": ours, "monai": theirs}, x, condition


def flops(options: argparse.Namespace, preset: str) -> dict[str, int]:
    """Floating-point operations of one denoising call, counted on the meta device."""
    denoisers, x, condition = make(options, preset, "meta")
    counts = {}
    for name, denoiser in denoisers.items():
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            denoiser(x, torch.zeros(len(x), device="meta"), condition)
        counts[name] = counter.get_total_flops()
    return counts


def matrix_rate(dtype: torch.dtype, device: str) -> float:
    """Best rate of a product of two square matrices, operations per second."""
    n = 8192 if device == "cuda" else 2048
    a = torch.randn(n, n, device=device, dtype=dtype)
    return 2 * n**3 / min(seconds(lambda: a @ a, device) for _ in range(8))


def calls(
    options: argparse.Namespace, denoiser: Denoiser, x: torch.Tensor, condition: Condition
) -> dict[str, Callable[[], None]]:
    """Return what is timed."""
    theta = torch.full((len(x),), 0.8, device=x.device)
    bf16 = options.precision == "bf16"
    optimizer: list[torch.optim.Optimizer] = []

    def train() -> None:
        if not optimizer:  # its moments are memory that denoising does not need
            optimizer.append(torch.optim.AdamW(denoiser.parameters(), 1e-4, fused=True))
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
            loss = diffusion_loss(
                denoiser, denoiser.config.prediction, x, x.flip(0, 1), theta, condition,
                denoiser.mask,
            )  # fmt: skip
        optimizer[0].zero_grad(set_to_none=True)
        loss.backward()
        optimizer[0].step()

    def denoise() -> None:
        with torch.inference_mode(), torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
            denoiser(x, theta, condition)

    named = {"denoise": denoise, "train": train}
    return {options.only: named[options.only]} if options.only else named


def compare(options: argparse.Namespace, preset: str) -> list[str]:
    """Rows of the table of one preset."""
    work = flops(options, preset)
    dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
    denoisers, x, condition = make(options, preset, options.device)
    if options.compile:
        for denoiser in denoisers.values():
            denoiser.backbone.compile(mode=options.compile)
    timed = {name: calls(options, d, x, condition) for name, d in denoisers.items()}
    rates = [matrix_rate(dtype, options.device)]
    rows, sizes = [], " / ".join(f"{size(denoisers[name]) / 1e6:.1f}" for name in WAYS)
    for kind in timed["ours"]:
        in_turn = {name: calls[kind] for name, calls in timed.items()}
        spent = in_turns(in_turn, options.repeats, options.device)
        rates.append(matrix_rate(dtype, options.device))
        shares = {
            name: PASSES[kind] * work[name] / statistics.median(turns.clock) / max(rates)
            for name, turns in spent.items()
        }
        cells = [
            [*turns.cells(), f"{work[name] / 1e12:.3f} ({shares[name]:.0%})"]
            for name, turns in spent.items()
        ]
        rows.append(
            row(
                preset, sizes, kind, *cells[0], *cells[1],
                paired_ratio(spent["monai"].clock, spent["ours"].clock),
                paired_ratio(spent["monai"].cpu, spent["ours"].cpu),
            )
        )  # fmt: skip
        print(rows[-1], flush=True)
    print(
        f"  {preset}: matrix product {', '.join(f'{rate / 1e9:.0f}' for rate in rates)} GFLOP/s"
        + (f", peak {torch.cuda.max_memory_allocated() / GIB:.1f} GiB" if x.is_cuda else ""),
        flush=True,
    )
    return rows


def main() -> None:
    options = arguments()
    print(machine(options.device))
    print(
        f"{options.batch} windows of latents {options.grid}³ at once, {options.precision} on "
        f"{options.device}, {options.compile or 'not'} compiled {' '.join(options.set)}\n"
    )
    rows = []
    for preset in options.presets:
        rows += compare(options, preset)
        gc.collect()
        if options.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
    columns = [column for name in WAYS.values() for column in (
        f"{name}: s", "CPU s", "TFLOP a denoising call (share of the matrix-product rate)",
    )]  # fmt: skip
    print()
    print(
        head(
            "preset", "parameters, million", "call", *columns, "MONAI / fmrisynth",
            "the same of CPU time",
        )
    )  # fmt: skip
    print("\n".join(rows))


if __name__ == "__main__":
    main()
