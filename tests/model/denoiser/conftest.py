"""Fixtures of the denoiser's tests."""

from __future__ import annotations

import pytest


@pytest.fixture
def monai(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip a test where MONAI is not installed, whose import sets a variable of the environment."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    pytest.importorskip("monai", minversion="1.4")
