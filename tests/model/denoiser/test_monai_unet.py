"""MONAI's network as a backbone: its interface, its condition, its size."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch

from fmrisynth.config.diffusion import BackboneConfig
from fmrisynth.config.presets import PRESETS
from fmrisynth.errors import UsageError
from fmrisynth.model.denoiser.conditioning import Condition, Vocabulary
from fmrisynth.model.denoiser.denoiser import Denoiser
from fmrisynth.model.denoiser.monai_unet import MonaiBackbone, matched
from fmrisynth.model.layers import Positions

WORDS = Vocabulary((("a", "x"), ("b", "y")), ("a", "b"), ("LR", "RL"), (), 5)
SHAPE = {
    "vocabulary": WORDS,
    "n_frames": 4,
    "channels": 2,
    "grid": (4, 4, 4),
    "anatomy_patch": 2,
}
CONFIG = BackboneConfig(widths=(16, 32), blocks=(1, 1), condition_width=32)


def condition_of(n: int = 4) -> Condition:
    generator = torch.Generator().manual_seed(0)
    length = WORDS.longest_history + SHAPE["n_frames"]
    valid = torch.ones(2, length, dtype=torch.bool)
    valid[:, :2] = False
    return Condition(
        attributes=torch.tensor([[1, 1, 0], [2, 2, 0]]),
        t_r=torch.full((2,), 2.0),
        frames=torch.randn(2, length, 6, generator=generator),
        times=torch.arange(length).expand(2, -1) * 2.0,
        valid=valid,
        evoked=torch.zeros(2, 4, 2, 2),
        anatomy=torch.randn(2, 2, 2 * n, 2 * n, 2 * n, generator=generator),
        condition_mask=torch.ones(2),
        anatomy_mask=torch.ones(2),
        mode_sd=torch.zeros(2, 0),
    )


def opened(config: BackboneConfig = CONFIG) -> MonaiBackbone:
    """A network whose layers that start at zero are opened."""
    torch.manual_seed(0)
    network = MonaiBackbone(config, **SHAPE)
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
    return network.eval()


def run(
    network: MonaiBackbone, x: torch.Tensor, theta: torch.Tensor, condition: Condition
) -> torch.Tensor:
    return network(x, theta, network.encode(condition))


def test_without_monai_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "monai", None)
    monkeypatch.setitem(sys.modules, "monai.networks.nets", None)
    with pytest.raises(UsageError, match=r"pip install 'fmrisynth\[monai\]'"):
        MonaiBackbone(CONFIG, **SHAPE)


def test_widths_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match="multiples of 16"):
        MonaiBackbone(BackboneConfig(widths=(24, 32), blocks=(1, 1)), **SHAPE)


@pytest.mark.usefixtures("monai")
class TestNetwork:
    def test_keeps_the_shape_of_a_window(self) -> None:
        x = torch.randn(2, 4, 2, 4, 4, 4)
        assert run(opened(), x, torch.tensor([0.1, 1.5]), condition_of()).shape == x.shape

    @torch.no_grad()
    def test_every_part_of_the_condition_reaches_the_output(self) -> None:
        network, x, theta = opened(), torch.randn(2, 4, 2, 4, 4, 4), torch.full((2,), 0.7)
        before = run(network, x, theta, condition_of())
        for change in ("attributes", "frames", "t_r", "anatomy", "condition_mask", "anatomy_mask"):
            condition = condition_of()
            value = getattr(condition, change)
            setattr(condition, change, value.flip(0) if change == "attributes" else value * 0)
            assert (run(network, x, theta, condition) - before).abs().max() > 1e-5, change
        assert (run(network, x, theta + 0.5, condition_of()) - before).abs().max() > 1e-5

    @torch.no_grad()
    def test_frames_before_the_run_do_not_count_as_tokens(self) -> None:
        network, x, theta = opened(), torch.randn(2, 4, 2, 4, 4, 4), torch.full((2,), 0.7)
        condition, other = condition_of(), condition_of()
        other.frames[:, :2] += 10
        assert torch.equal(run(network, x, theta, condition), run(network, x, theta, other))

    def test_every_weight_learns(self) -> None:
        network = opened().train()
        run(network, torch.randn(2, 4, 2, 4, 4, 4), torch.rand(2), condition_of()).sum().backward()
        idle = [n for n, p in network.named_parameters() if p.grad is None]
        assert not idle

    @pytest.mark.parametrize("millions", [38.1, 236.5])
    def test_matches_a_number_of_parameters(self, millions: float) -> None:
        levels = BackboneConfig(widths=(96, 128, 160), blocks=(1, 1, 1))
        shape = SHAPE | {"n_frames": 20, "channels": 4}
        config = matched(levels, round(millions * 1e6), **shape)
        with torch.device("meta"):
            network = MonaiBackbone(config, **shape)
        found = sum(p.numel() for p in network.parameters())
        assert found / 1e6 == pytest.approx(millions, rel=0.01)
        assert list(config.widths) == sorted(set(config.widths))

    def test_has_a_finer_level_where_another_folds(self) -> None:
        """The same network stands beside a form with a stem and beside one without."""
        whole = BackboneConfig(widths=(96, 128, 160), blocks=(1, 1, 1))
        folded = BackboneConfig(widths=(256, 384), blocks=(1, 2), stem=2)
        assert folded.grid_multiple == whole.grid_multiple
        found = [matched(levels, 40_000_000, **SHAPE) for levels in (whole, folded)]
        assert found[0].widths == found[1].widths
        assert found[1].stem == 1

    @torch.no_grad()
    def test_is_given_places(self) -> None:
        network, x, theta = opened(), torch.randn(2, 4, 2, 4, 4, 4), torch.full((2,), 0.7)
        before, entrance = run(network, x, theta, condition_of()), network.network.conv_in.conv
        entrance.weight[:, -Positions.WAVES :] = 0
        assert (run(network, x, theta, condition_of()) - before).abs().max() > 1e-3
        without = opened(replace(CONFIG, positions=False)).network.conv_in.conv
        assert entrance.in_channels - without.in_channels == Positions.WAVES

    def test_maps_of_the_frames_start_at_zero_and_learn_in_the_first_step(self) -> None:
        network = MonaiBackbone(CONFIG, **SHAPE)
        out = run(network, torch.randn(2, 4, 2, 4, 4, 4), torch.rand(2), condition_of())
        assert not out.any()
        out.sum().backward()
        assert network.frame_head.maps.grad.abs().sum() > 0
        assert MonaiBackbone(replace(CONFIG, frame_components=0), **SHAPE).frame_head is None

    def test_refuses_a_size_below_its_narrowest(self) -> None:
        with pytest.raises(UsageError, match="as small as"):
            matched(CONFIG, 1000, **SHAPE)

    def test_is_one_option_of_the_same_configuration(self) -> None:
        """As large as the hybrid of the same settings, and trained by the same denoiser."""
        hybrid = PRESETS["scaled-38m"].denoiser
        chosen = replace(hybrid, backbone=replace(hybrid.backbone, architecture="monai"))
        counts = []
        for config in (hybrid, chosen):
            with torch.device("meta"):
                denoiser = Denoiser(config, WORDS, 4, torch.ones(8, 8, 8, dtype=torch.bool), 4)
            counts.append(sum(p.numel() for p in denoiser.parameters()))
        assert isinstance(denoiser.backbone, MonaiBackbone)
        assert counts[1] == pytest.approx(counts[0], rel=0.01)
