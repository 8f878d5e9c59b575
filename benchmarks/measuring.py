"""Times in turns, and the memory of a process of its own."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import nn

GIB = 2**30


def seconds(call: Callable[[], object], device: str) -> float:
    """Wall-clock time of one call."""
    started = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def in_turns(
    calls: Mapping[str, Callable[[], object]], repeats: int, device: str
) -> dict[str, list[float]]:
    """Seconds of each call, one after the other: a busy machine slows all alike."""
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(repeats + 1):
        for name, call in calls.items():
            duration = seconds(call, device)
            if repeat:  # the first call prepares
                spent[name].append(duration)
    return spent


def spread(values: Sequence[float], scale: float = 1.0) -> str:
    """Median, and from where to where: ``1.23 (1.20 to 1.40)``."""
    low, high = sorted((min(values) * scale, max(values) * scale))
    return f"{statistics.median(values) * scale:.2f} ({low:.2f} to {high:.2f})"


def size(network: nn.Module) -> int:
    """Parameters."""
    return sum(p.numel() for p in network.parameters())


def in_child(function: Callable[..., Any], *args: Any) -> Any:
    """Call a module's function in a process of its own, so that its peak memory is its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def peak_memory(device: str) -> int:
    """Bytes this process has had at once: resident, or on the GPU as torch has allocated them."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return _status("VmHWM")


def memory_now(device: str) -> int:
    """Bytes this process has now, of the same kind."""
    if device == "cuda":
        return torch.cuda.memory_allocated()
    return _status("VmRSS")


def memory_of_machine(device: str) -> int:
    """Bytes that are free to be used."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) * 1024


def _status(name: str) -> int:
    """Bytes of a line of /proc/self/status.

    Not getrusage's maximum, which a child inherits from the process that started it.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024
