"""The denoiser computes where it lies: no value goes from or to the CPU within a step.

The meta device stands for a GPU. A tensor of the CPU that is mixed with those of a GPU is a copy
that all of the GPU's work waits for, unless it is a plain number.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fmrisynth.config.diffusion import BackboneConfig, DenoiserConfig
from fmrisynth.model.denoiser.conditioning import Condition, Vocabulary
from fmrisynth.model.denoiser.denoiser import Denoiser
from fmrisynth.training.diffusion_loss import diffusion_loss
from fmrisynth.training.loop import Ema

WAITS = {"_local_scalar_dense", "item", "nonzero", "is_nonzero", "masked_select", "equal"}
VOCABULARY = Vocabulary((("motor", "hand"), ("motor", "foot")), ("motor",), (), (), 3)


class NoCopies(TorchDispatchMode):
    """Record operations that mix devices, or whose result the CPU has to wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        leaves = tree_leaves((args, kwargs, result))
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        devices = {tensor.device.type for tensor in tensors if tensor.dim()}
        name = func._schema.name.removeprefix("aten::")
        if devices - {"meta"} or name in WAITS:
            self.seen.append(f"{name} on {sorted(devices)}")
        return result


@pytest.fixture(params=["hybrid", "stem", "dit", "monai"])
def denoiser(request: pytest.FixtureRequest) -> Iterator[Denoiser]:
    widths, blocks = ((32, 64), (1, 1)) if request.param != "dit" else ((64,), (1,))
    if request.param == "monai":
        request.getfixturevalue("monai")
        widths = (128, 256)
    form = {"stem": 2} if request.param == "stem" else {"architecture": request.param}
    backbone = BackboneConfig(widths, blocks, **form)
    with torch.device("meta"):
        mask = torch.ones(7, 8, 6, dtype=torch.bool)
        yield Denoiser(DenoiserConfig(n_frames=4, backbone=backbone), VOCABULARY, 2, mask, 2)


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Condition]:
    """Latents, noise, angles and conditions on the meta device."""
    with torch.device("meta"):
        condition = Condition(
            attributes=torch.ones(2, 3, dtype=torch.int64),
            t_r=torch.ones(2),
            frames=torch.ones(2, 7, 6),
            times=torch.ones(2, 7),
            valid=torch.ones(2, 7, dtype=torch.bool),
            evoked=torch.ones(2, 4, 2, 2),
            anatomy=torch.ones(2, 2, 14, 16, 12),
            condition_mask=torch.ones(2),
            anatomy_mask=torch.ones(2),
            mode_sd=torch.zeros(2, 0),
        )
        x = torch.ones(2, 4, 2, 7, 8, 6)
        return x, torch.ones_like(x), torch.ones(2), condition


def test_a_training_step_copies_nothing(denoiser: Denoiser) -> None:
    x, noise, theta, condition = batch()
    average = Ema(denoiser, 0.99)
    with NoCopies() as copies:
        loss = diffusion_loss(denoiser, "v", x, noise, theta, condition, denoiser.mask)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(denoiser.parameters(), 1.0)
        average.update(1)
    assert not copies.seen
    assert all(p.grad is not None and p.grad.is_meta for p in denoiser.parameters())


def test_a_denoising_call_copies_nothing(denoiser: Denoiser) -> None:
    x, _, theta, condition = batch()
    encoded = denoiser.encode(condition)
    with torch.inference_mode(), NoCopies() as copies:
        out = denoiser.as_velocity(x, theta, denoiser.predict(x, theta, encoded))
    assert not copies.seen
    assert out.shape == x.shape


def test_a_copy_is_seen() -> None:
    x = torch.ones(3, device="meta")
    with NoCopies() as copies:
        x * torch.ones(3).to("meta")
    assert copies.seen
