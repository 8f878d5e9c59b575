"""One training step and one denoising call: this project's backbone against MONAI's.

Both have the same number of parameters, latents, condition, batch, precision
and optimiser, and take turns in one process. What each reaches of the machine's
measured matrix-product rate is printed beside the ratio.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from dataclasses import replace

import torch
from measuring import in_turns, seconds, size
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from fmrisynth.config.codec import override
from fmrisynth.config.presets import PRESETS
from fmrisynth.model.denoiser.conditioning import Condition, Vocabulary
from fmrisynth.model.denoiser.denoiser import Denoiser
from fmrisynth.training.diffusion_loss import diffusion_loss

TASKS = ("emotion", "gambling", "language", "motor", "relational", "social", "wm")
VOCABULARY = Vocabulary(tuple((task, "active") for task in TASKS), TASKS, ("LR", "RL"), (), 28)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="scaled-38m", choices=PRESETS)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--grid", type=int, default=24, help="latent voxels along each axis")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--precision", choices=("32", "bf16"), default="bf16")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", choices=("train", "denoise"))
    return parser.parse_args()


def make(
    options: argparse.Namespace, device: str
) -> tuple[dict[str, Denoiser], torch.Tensor, Condition]:
    """Both denoisers, latents and conditions, on a device ("meta" to count alone)."""
    config = override(PRESETS[options.preset], dict(item.split("=", 1) for item in options.set))
    diffused = config.denoiser
    patch, channels = config.autoencoder.factor, config.autoencoder.latent_channels
    frames, n, batch = diffused.n_frames, options.grid, options.batch
    chosen = replace(diffused, backbone=replace(diffused.backbone, architecture="monai"))
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
        )
    return {"ours": ours, "monai": theirs}, x, condition


def flops(options: argparse.Namespace) -> dict[str, int]:
    """Floating-point operations of one denoising call, counted on the meta device."""
    denoisers, x, condition = make(options, "meta")
    counts = {}
    for name, denoiser in denoisers.items():
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            denoiser(x, torch.zeros(len(x), device="meta"), condition)
        counts[name] = counter.get_total_flops()
    return counts


def matrix_rate(dtype: torch.dtype, device: str, n: int = 2048) -> float:
    """Best rate of an n × n matrix product, operations per second."""
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


def main() -> None:
    options = arguments()
    work = flops(options)
    dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
    denoisers, x, condition = make(options, options.device)
    timed = {name: calls(options, d, x, condition) for name, d in denoisers.items()}
    print(
        f"{options.preset} {' '.join(options.set)}, batch {options.batch}, "
        f"latents {tuple(x.shape[1:])}, {options.precision} on {options.device}, "
        f"{torch.get_num_threads()} threads"
    )
    for name, denoiser in denoisers.items():
        print(f"  {name}: {size(denoiser) / 1e6:.1f}M, {work[name] / 1e12:.3f} TFLOP a call")
    rates = [matrix_rate(dtype, options.device)]
    for kind in timed["ours"]:
        in_turn = {name: calls[kind] for name, calls in timed.items()}
        spent = in_turns(in_turn, options.repeats, options.device)
        rates.append(matrix_rate(dtype, options.device))
        median = {name: statistics.median(values) for name, values in spent.items()}
        passes = 3 if kind == "train" else 1  # backward is twice the forward
        for name, duration in median.items():
            share = passes * work[name] / duration / max(rates)
            print(
                f"  {kind:8s} {name:6s} {duration:8.3f} s "
                f"(from {min(spent[name]):.3f} to {max(spent[name]):.3f}), "
                f"{share:.0%} of the matrix-product rate"
            )
        print(f"  {kind:8s} monai / ours = {median['monai'] / median['ours']:.2f}")
    print("  matrix product: " + ", ".join(f"{rate / 1e9:.0f}" for rate in rates) + " GFLOP/s")


if __name__ == "__main__":
    main()
