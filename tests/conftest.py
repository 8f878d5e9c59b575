"""Provide the fixtures that all tests share, and check that tests leave no traces."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.bids_tree import make_bids

from fmrisynth.bids.validation import VALIDATOR, find_validator

os.environ.setdefault("OMP_NUM_THREADS", "1")
# Processes that a test spawns import its module as tests.…; last, so that the fmrisynth that is
# installed is the one that is tested.
sys.path.append(str(Path(__file__).resolve().parents[1]))

# pytest's own, and those that libraries set when they are imported
_NOT_OF_TESTS = (
    "PYTEST_CURRENT_TEST",
    "CRC32C_SW_MODE",
    "KMP_DUPLICATE_LIB_OK",
    "KMP_INIT_AT_FORK",
    "PYTORCH_NVML_BASED_CUDA_CHECK",
    "TORCHINDUCTOR_CACHE_DIR",
)


@pytest.fixture
def monai(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip a test where MONAI is not installed, whose import sets a variable of the environment."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    pytest.importorskip("monai", minversion="1.4")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests marked `validator` where the BIDS validator is not installed."""
    if find_validator() is not None:
        return
    skip = pytest.mark.skip(reason=f"{VALIDATOR} is not installed")
    for item in items:
        if item.get_closest_marker("validator"):
            item.add_marker(skip)


def _global_state() -> dict[str, Any]:
    """Collect the state of the process that a test could change for the next one."""
    log = logging.getLogger("fmrisynth")
    root = logging.getLogger()
    state: dict[str, Any] = {
        **{f"${k}": v for k, v in os.environ.items() if k not in _NOT_OF_TESTS},
        "working directory": os.getcwd(),
        "numpy's global generator": np.random.get_state()[1].tobytes(),  # noqa: NPY002
        "log handlers": [
            handler
            for handler in (*root.handlers, *log.handlers)
            if not type(handler).__module__.startswith("_pytest")
        ],
        "log level": log.level,
        "log propagation": log.propagate,
    }
    if (torch := sys.modules.get("torch")) is not None:
        state["torch's threads"] = torch.get_num_threads()
        state["torch's default dtype"] = torch.get_default_dtype()
        state["torch's gradient mode"] = torch.is_grad_enabled()
    return state


@pytest.fixture(autouse=True)
def _no_traces() -> Iterator[None]:
    """Fail a test that changes the state of the process; `monkeypatch` takes changes back."""
    before = _global_state()
    yield
    after = _global_state()
    state = before | {name: value for name, value in after.items() if name.startswith("$")}
    changed = [name for name in state if before.get(name) != after.get(name)]
    if "working directory" in changed:
        os.chdir(before["working directory"])
    assert changed == [], f"the test left changes in: {', '.join(changed)}"


@pytest.fixture(scope="session")
def _tiny_bids_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bids(tmp_path_factory.mktemp("tiny") / "bids")


@pytest.fixture(scope="session")
def tiny_bids(_tiny_bids_template: Path) -> Path:
    """Raw BIDS and fMRIPrep-like derivatives: 3 participants × 2 tasks, 8×9×8×20. Read only."""
    return _tiny_bids_template


@pytest.fixture
def tiny_bids_copy(_tiny_bids_template: Path, tmp_path: Path) -> Path:
    """A copy of `tiny_bids` that a test may damage."""
    return Path(shutil.copytree(_tiny_bids_template, tmp_path / "bids"))


@pytest.fixture
def bids_factory(tmp_path: Path) -> Callable[..., Path]:
    """`make_bids` into a fresh folder, with its keyword arguments."""

    def factory(name: str = "bids", **options: Any) -> Path:
        return make_bids(tmp_path / name, **options)

    return factory


@pytest.fixture
def restored_process() -> Iterator[None]:
    """Restore the state of the process that the command line changes."""
    from support.command_line import restored_process

    with restored_process():
        yield


@pytest.fixture
def call(
    capsys: pytest.CaptureFixture[str], restored_process: None
) -> Callable[..., tuple[int, str, str]]:
    """Run the command line in this process; returns exit code, output and messages."""
    from support.command_line import run_command_line

    return lambda *words, **options: run_command_line(capsys, *words, **options)
