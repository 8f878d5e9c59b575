"""Choose the device and the precision of the networks."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import (
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)

from fmrisynth.errors import UsageError

__all__ = ["make_fabric", "resolve_precision"]


def _fast_bfloat16() -> bool:
    """Return whether this CPU multiplies bfloat16 matrices in hardware."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return any(name in flags for name in ("avx512_bf16", "amx_bf16", "bf16"))


def resolve_precision(precision: str, device: str) -> str:
    """Replace ``auto`` by bf16-mixed where the hardware has it, else by 32-true."""
    if precision != "auto":
        return precision
    if device == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    return "bf16-mixed" if _fast_bfloat16() else "32-true"


def make_fabric(device: str, precision: str, seed: int) -> Fabric:
    """Set up device, precision and seed; under torchrun and SLURM, data parallelism.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda"}
        Where to compute.
    precision : {"auto", "32-true", "bf16-mixed"}
        Precision of the networks.
    seed : int
        Seed of the initial weights.

    Raises
    ------
    UsageError
        `device` is ``cuda`` and no CUDA device is visible.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "--device cuda: no CUDA device is visible. Pass the GPU into the container "
            "(docker --gpus all, apptainer --nv), or use --device auto or cpu."
        )
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 — third-party code may use the global state
    torch.manual_seed(seed)
    if device == "cpu":
        torch.use_deterministic_algorithms(True, warn_only=True)
    launched = "WORLD_SIZE" in os.environ
    known = TorchElasticEnvironment.detect() or SLURMEnvironment.detect()
    fabric = Fabric(
        accelerator=device,
        # left to itself it would ask MPI, which fails where mpi4py is installed without a library
        plugins=None if known else LightningEnvironment(),
        devices=int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if launched else 1,
        num_nodes=int(os.environ.get("GROUP_WORLD_SIZE", "1")) if launched else 1,
        strategy="ddp" if launched and int(os.environ["WORLD_SIZE"]) > 1 else "auto",
        precision=resolve_precision(precision, device),  # type: ignore[arg-type]
    )
    fabric.launch()
    return fabric
