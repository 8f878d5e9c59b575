"""Fixtures that the tests of every part share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.bids_tree import make_bids

os.environ.setdefault("OMP_NUM_THREADS", "1")


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
