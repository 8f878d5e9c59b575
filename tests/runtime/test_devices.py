"""The surroundings of a call, a SLURM job's above all, do not decide what it computes with."""

from __future__ import annotations

import pytest
import torch

from fmrisynth.runtime import devices
from fmrisynth.runtime.devices import exact_for_grid, make_fabric, resolve_precision

BATCH_JOB = {
    "SLURM_JOB_ID": "42",
    "SLURM_JOB_NAME": "synth",
    "SLURM_NODELIST": "n1",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
}

pytestmark = pytest.mark.usefixtures("restored_process")


@pytest.fixture(autouse=True)
def _restored_torch():
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    "more", [{}, {"SLURM_NTASKS_PER_NODE": "2"}, {"SLURM_JOB_NAME": "bash"}, {"WORLD_SIZE": "2"}]
)
def test_a_batch_job_of_several_tasks(monkeypatch: pytest.MonkeyPatch, more) -> None:
    for name, value in (BATCH_JOB | more).items():
        monkeypatch.setenv(name, value)
    fabric = make_fabric("cpu", "32-true", 0)
    assert (fabric.world_size, fabric.global_rank) == (1, 0)


def test_processes_of_srun_are_told_that_they_share_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    step = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}
    for name, value in (BATCH_JOB | step).items():
        monkeypatch.setenv(name, value)
    fabric = make_fabric("cpu", "32-true", 0)
    assert (fabric.world_size, fabric.global_rank) == (1, 0)
    assert "srun started 2 processes, which all do the same work" in caplog.text


@pytest.mark.parametrize(
    ("shape", "stem", "precision", "expected"),
    [
        ((8, 8, 8), 1, "bf16-mixed", "32-true"),
        ((24, 28, 8), 1, "bf16-mixed", "32-true"),
        ((24, 28, 12), 1, "bf16-mixed", "bf16-mixed"),
        ((24, 28, 16), 2, "bf16-mixed", "32-true"),
        ((24, 28, 20), 2, "bf16-mixed", "bf16-mixed"),
        ((8, 8, 8), 1, "32-true", "32-true"),
    ],
)
def test_small_grids_are_trained_in_full_precision(
    shape: tuple[int, int, int],
    stem: int,
    precision: str,
    expected: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fabric = exact_for_grid(make_fabric("cpu", precision, 0), shape, stem)
    assert fabric._precision.precision == expected
    assert ("training in 32-true" in caplog.text) is (expected != precision)


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("vendor_id : GenuineIntel\nflags : avx2 avx512_bf16 amx_bf16 amx_tile", "bf16-mixed"),
        ("vendor_id : GenuineIntel\nflags : avx2 avx512f avx512_bf16", "32-true"),
        ("vendor_id : AuthenticAMD\nflags : avx2 avx512f avx512_bf16", "bf16-mixed"),
        ("vendor_id : AuthenticAMD\nflags : avx2", "32-true"),
        ("Features : fp asimd i8mm bf16", "bf16-mixed"),
        ("Features : fp asimd", "32-true"),
        (None, "32-true"),
    ],
)
def test_auto_takes_bfloat16_only_where_it_is_faster(
    monkeypatch: pytest.MonkeyPatch, tmp_path, cpuinfo: str | None, expected: str
) -> None:
    made_up = tmp_path / "cpuinfo"
    if cpuinfo is not None:
        made_up.write_text(cpuinfo)
    monkeypatch.setattr(devices, "Path", lambda _: made_up)
    assert resolve_precision("auto", "cpu") == expected
    assert resolve_precision("bf16-mixed", "cpu") == "bf16-mixed"
