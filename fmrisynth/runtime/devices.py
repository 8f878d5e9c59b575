"""Choose the device and the precision of the networks."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import (
    LightningEnvironment,
    TorchElasticEnvironment,
)

from fmrisynth.errors import UsageError

__all__ = ["exact_for_grid", "make_fabric", "resolve_precision"]

# Along an axis of 2 latent voxels the weights' gradients of a 3D convolution in bfloat16 are wrong
# on CPUs (pytorch/pytorch#169688); grids of 8 voxels have such latents.
LARGEST_FLOAT32_AXIS = 8

log = logging.getLogger(__name__)


def _fast_bfloat16(cpuinfo: str) -> bool:
    """Return whether a CPU multiplies bfloat16 matrices faster than float32 ones.

    Intel's ``avx512_bf16`` is left out: it multiplies no more numbers a cycle than
    float32 does, and networks ran 1.7 times slower with it (Sapphire Rapids whose AMX
    the hypervisor hides).
    """
    words = set(cpuinfo.split())
    if "AuthenticAMD" in words and "avx512_bf16" in words:
        return True
    return bool(words & {"amx_bf16", "bf16"})  # Intel's matrices, and ARM's


def resolve_precision(precision: str, device: str) -> str:
    """Replace ``auto`` by bf16-mixed where that is faster, else by 32-true."""
    if precision != "auto":
        return precision
    if device == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text()
    except OSError:
        return "32-true"
    return "bf16-mixed" if _fast_bfloat16(cpuinfo) else "32-true"


def make_fabric(device: str, precision: str, seed: int) -> Fabric:
    """Set up device, precision and seed; under torchrun, data parallelism.

    The variables of a surrounding SLURM job do not count: it may have tasks that
    are none of this call's processes.

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
    return _launch(device, resolve_precision(precision, device))


def _launch(accelerator: str, precision: str) -> Fabric:
    """Start Fabric, with the processes of torchrun where there are any."""
    launched = TorchElasticEnvironment.detect()
    n_tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "1")
    if not launched and n_tasks != "1" and "SLURM_STEP_ID" in os.environ:
        log.warning(
            "srun started %s processes, which all do the same work. Start one, or let torchrun "
            "start the processes, so that they share it.",
            n_tasks,
        )
    fabric = Fabric(
        accelerator=accelerator,
        # left to itself it would ask MPI, which fails where mpi4py is installed without a library,
        # and SLURM, whose tasks may not be this call's processes
        plugins=None if launched else LightningEnvironment(),
        devices=int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if launched else 1,
        num_nodes=int(os.environ.get("GROUP_WORLD_SIZE", "1")) if launched else 1,
        strategy="ddp" if launched and int(os.environ["WORLD_SIZE"]) > 1 else "auto",
        precision=precision,  # type: ignore[arg-type]
    )
    fabric.launch()
    return fabric


def exact_for_grid(fabric: Fabric, shape: Sequence[int], stem: int = 1) -> Fabric:
    """Return a Fabric whose gradients are right on a grid: in 32-true where bfloat16 is not.

    Parameters
    ----------
    fabric : lightning_fabric.Fabric
        As `make_fabric` sets it up.
    shape : sequence of int
        (X, Y, Z) of the model grid.
    stem : int
        Latent voxels that the backbone folds into one along each axis.
    """
    smallest = stem * LARGEST_FLOAT32_AXIS + 1
    rounded = str(fabric._precision.precision) != "32-true"
    if fabric.device.type != "cpu" or not rounded or min(shape) >= smallest:
        return fabric
    log.warning(
        "the model grid %s has an axis of fewer than %d voxels, on which this CPU's bfloat16 has "
        "wrong gradients; training in 32-true",
        "×".join(map(str, shape)),
        smallest,
    )
    return _launch("cpu", "32-true")
