"""Times in turns, and the memory of a process of its own."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from scipy.stats import t as student
from torch import nn

GIB = 2**30


@dataclass
class Spent:
    """Clock and CPU time of the repetitions of one call, s."""

    clock: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def cells(self) -> list[str]:
        """Median clock time with its range, and median CPU time: two cells of a table."""
        return [spread(self.clock), f"{statistics.median(self.cpu):.3g}"]


def wait(device: str) -> None:
    """Wait until a GPU has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(call: Callable[[], object], device: str) -> float:
    """Wall-clock time of one call."""
    wait(device)
    started = time.perf_counter()
    call()
    wait(device)
    return time.perf_counter() - started


def in_turns(
    calls: Mapping[str, Callable[[], object]], repeats: int, device: str
) -> dict[str, Spent]:
    """Time of each call, one after the other: a busy machine slows all alike."""
    spent = {name: Spent() for name in calls}
    for repeat in range(repeats + 1):
        for name, call in calls.items():
            before = time.process_time()
            duration = seconds(call, device)
            if repeat:  # the first call prepares
                spent[name].clock.append(duration)
                spent[name].cpu.append(time.process_time() - before)
    return spent


def paired_ratio(above: Sequence[float], below: Sequence[float]) -> str:
    """Ratio of two ways over their turns, with its 95 % interval: ``2.31 (2.25 to 2.38)``.

    Geometric mean and Student's interval of the logarithms of the turns' ratios.
    """
    logs = [math.log(a / b) for a, b in zip(above, below, strict=True)]
    middle = statistics.fmean(logs)
    if len(logs) < 2:
        return f"{math.exp(middle):.3g}"
    half = student.ppf(0.975, len(logs) - 1) * statistics.stdev(logs) / len(logs) ** 0.5
    low, high = math.exp(middle - half), math.exp(middle + half)
    return f"{math.exp(middle):.3g} ({low:.3g} to {high:.3g})"


def row(*cells: object) -> str:
    """One row of a Markdown table."""
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def head(*columns: str) -> str:
    """Write the head of a Markdown table."""
    return row(*columns) + "\n|" + "---|" * len(columns)


def machine(device: str) -> str:
    """Date, command, processor and versions: what stands above a table."""
    words = " ".join(["python", *sys.argv])
    cores = f"{len(os.sched_getaffinity(0))} of {os.cpu_count()} cores of {_processor()}"
    gpu = f", {torch.cuda.get_device_name()}" if device == "cuda" else ""
    return (
        f"`{words}`\n{time.strftime('%Y-%m-%d')}, {cores}{gpu}, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, load {os.getloadavg()[0]:.1f}\n"
    )


def _processor() -> str:
    """Name of the processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def spread(values: Sequence[float], scale: float = 1.0) -> str:
    """Median, and from where to where: ``1.23 (1.2 to 1.4)``."""
    low, high = sorted((min(values) * scale, max(values) * scale))
    return f"{statistics.median(values) * scale:.3g} ({low:.3g} to {high:.3g})"


def size(network: nn.Module) -> int:
    """Parameters."""
    return sum(p.numel() for p in network.parameters())


def in_child(function: Callable[..., Any], *args: Any) -> Any:
    """Call a module's function in a process of its own, so that its peak memory is its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


@dataclass
class Called:
    """What a call of a program took: seconds, CPU seconds and bytes of its largest process."""

    seconds: float
    cpu: float
    peak: int

    def cell(self) -> str:
        return f"{self.seconds:.1f} ({self.cpu:.1f}; {self.peak / GIB:.2f})"


# a process starts with the peak of the one that starts it, so that this one is small
CALLER = """
import json, os, subprocess, sys, time
started = time.monotonic()
process = subprocess.Popen(sys.argv[1:], stdout=2)
_, status, usage = os.wait4(process.pid, 0)
print(json.dumps([
    os.waitstatus_to_exitcode(status), time.monotonic() - started,
    usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024,
]))
"""


def call_program(words: Sequence[str]) -> Called:
    """Run a program with its workers to its end."""
    caller = [sys.executable, "-S", "-c", CALLER, *words]
    done = subprocess.run(caller, capture_output=True, text=True, check=True)
    code, *taken = json.loads(done.stdout)
    if code:
        sys.exit(f"{' '.join(words)} ended with {code}:\n{done.stderr[-3000:]}")
    return Called(*taken)


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
