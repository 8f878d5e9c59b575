"""The backbone's parts: places, the condition's parts, gates, widths, the head by frames."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.tiny_denoiser import size
from support.tiny_model import (
    BACKBONE,
    LATENT,
    N_FRAMES,
    VOCABULARY,
    blocks,
    perturb,
    run_condition,
)

from fmrisynth.config.diffusion import BackboneConfig
from fmrisynth.model.denoiser.backbone import Backbone, ConditionEncoder, Stage
from fmrisynth.model.denoiser.conditioning import Condition
from fmrisynth.model.denoiser.frame_head import FrameHead
from fmrisynth.model.layers import cosines

CHANNELS = 2
FORMS = [
    {},
    {"architecture": "cnn"},
    {"architecture": "transformer"},
    {"cross_attention": False},
    {"stem": 2},
    {"stem": 2, "architecture": "cnn"},
    {"stem": 2, "architecture": "transformer"},
]


def backbone_of(**changes: object) -> Backbone:
    torch.manual_seed(0)
    return Backbone(replace(BACKBONE, **changes), VOCABULARY, N_FRAMES, CHANNELS, LATENT, 2)


def window(*names: str) -> Condition:
    return run_condition(blocks(*(names or ("hand", "foot", "hand")))).window(4, N_FRAMES)


def latents() -> torch.Tensor:
    shape = (1, N_FRAMES, CHANNELS, *LATENT)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def output(backbone: Backbone, condition: Condition, theta: float = 0.9) -> torch.Tensor:
    return backbone(latents(), torch.tensor([theta]), backbone.encode(condition))


# Places


@pytest.mark.parametrize("shape", [(4, 6, 5), (1, 3, 2)])
def test_the_cosines_of_a_lattice_are_its_whole_orthonormal_basis(
    shape: tuple[int, int, int],
) -> None:
    count = shape[0] * shape[1] * shape[2]
    basis = cosines(shape, count, torch.device("cpu")).flatten(1)
    torch.testing.assert_close(basis @ basis.T / count, torch.eye(count), atol=1e-4, rtol=0)
    more = cosines(shape, count + 3, torch.device("cpu")).flatten(1)
    assert torch.equal(more[:count], basis)
    assert not more[count:].any()


def test_the_first_cosines_are_the_smoothest() -> None:
    basis = cosines((8, 10, 8), 64, torch.device("cpu"))
    roughness = sum(basis.diff(dim=axis).square().mean((1, 2, 3)) for axis in (1, 2, 3))
    assert roughness[0] == 0
    assert roughness[1:9].max() < roughness[-8:].min()


@pytest.mark.parametrize("architecture", ["cnn", "transformer", "hybrid"])
@pytest.mark.parametrize("level", [0, 1])
def test_blocks_of_every_level_know_their_places(architecture: str, level: int) -> None:
    """Far from the edges, convolutions of a constant are the same everywhere without."""
    for positions in (True, False):
        config = replace(BACKBONE, architecture=architecture, positions=positions)
        stage = Stage(config, level, (10 << level, 10 << level, 10 << level))
        perturb(stage, 0.3)
        width, tokens = config.widths[level], torch.zeros(1, 1, config.condition_width)
        x, valid = torch.ones(1, width, 10, 10, 10), torch.ones(1, 1, dtype=torch.bool)
        with torch.no_grad():
            y = stage(x, torch.zeros(1, config.condition_width), tokens, valid)
        differs = size(y[..., 3, 4, 5] - y[..., 6, 5, 4]) > 1e-4
        assert differs == (positions or not config.is_convolutional(level))


# The condition


@pytest.mark.parametrize("normalised", [True, False])
def test_events_are_as_loud_as_attributes(normalised: bool) -> None:
    torch.manual_seed(0)
    config = BackboneConfig(normalised_condition=normalised)
    encoder = ConditionEncoder(config, VOCABULARY, N_FRAMES)
    here, sums = window(), []
    encoder.pool.register_forward_pre_hook(lambda _, args: sums.append(args[0]))
    other_task = replace(here, attributes=torch.tensor([[2, 2, 1]]))
    for condition in (here, window("foot", "hand", "foot"), other_task):
        encoder(condition)
    loudness = size(sums[1] - sums[0]) / size(sums[2] - sums[0])
    assert (loudness > 0.3) == normalised


# What starts at zero


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_the_output_starts_at_zero_and_its_first_gradient_knows_the_events(form: dict) -> None:
    """A gate that starts at zero behind a head that does gives no such gradient."""
    for zero_gates in (False, True):
        gradients = []
        for names in (("hand",), ("foot",)):
            backbone = backbone_of(**form, frame_components=0, zero_gates=zero_gates)
            out = output(backbone, window(*names))
            assert not out.any()
            (out - 1).square().mean().backward()
            gradients.append(backbone.head.weight.grad)
        difference = size(gradients[1] - gradients[0]) / size(gradients[0])
        assert (difference > 1e-3) != zero_gates


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_maps_start_at_zero_and_learn_in_the_first_step(form: dict) -> None:
    backbone = backbone_of(**form)
    out = output(backbone, window())
    assert not out.any()
    (out - 1).square().mean().backward()
    head = backbone.frame_head
    assert head.maps.grad.abs().sum() > 0
    assert head.project.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("width", [48, 40])
def test_widths_that_32_groups_do_not_divide_are_built(width: int) -> None:
    backbone = backbone_of(widths=(width, 48), head_width=8, architecture="cnn")
    assert output(backbone, window()).shape == latents().shape


# The stem


@pytest.mark.parametrize("components", [0, 3])
@torch.no_grad()
def test_a_stem_folds_the_grid_and_gives_every_voxel_a_value_of_its_own(components: int) -> None:
    backbone = backbone_of(stem=2, frame_components=components)
    perturb(backbone, 0.3)
    seen: list[torch.Size] = []
    backbone.down[0].register_forward_hook(lambda _, args, out: seen.append(out.shape))
    out = output(backbone, window())
    assert seen == [(1, BACKBONE.widths[0], 4, 4, 4)]
    assert out.shape == latents().shape
    for axis in (3, 4, 5):
        first, second = out.unfold(axis, 2, 2).unbind(-1)
        assert size(first - second) > 0.1 * size(out)


def test_a_stem_of_one_is_the_form_without() -> None:
    assert BackboneConfig() == BackboneConfig(stem=1)
    assert backbone_of().stem.kernel_size == (3, 3, 3)
    for stem in (0, 3):
        with pytest.raises(ValueError, match=f"stem is {stem}"):
            replace(BACKBONE, stem=stem)


# The head modulated by frames


def frame_head() -> FrameHead:
    torch.manual_seed(0)
    head = FrameHead(3, 5, 16, 8, CHANNELS, (4, 4, 4))
    perturb(head, 0.5)
    return head.eval()


@torch.no_grad()
def test_a_frame_is_changed_by_its_own_events_alone() -> None:
    head, frames, pooled = frame_head(), torch.randn(2, 6, 5), torch.randn(2, 16)
    features = torch.randn(2, 8, 4, 4, 4)
    before = head(frames, pooled, features)
    assert before.shape == (2, 6, CHANNELS, 4, 4, 4)
    frames[1, 2] += 1
    change = (head(frames, pooled, features) - before).abs().amax((2, 3, 4, 5)) > 1e-4
    assert change.nonzero().tolist() == [[1, 2]]


@torch.no_grad()
def test_maps_follow_features_and_the_pooled_condition_scales_their_courses() -> None:
    head, frames, pooled = frame_head(), torch.randn(1, 6, 5), torch.randn(1, 16)
    features = torch.randn(1, 8, 4, 4, 4)
    before = head(frames, pooled, features)
    other = features.clone()
    other[..., 1, 2, 3] += 1
    change = (head(frames, pooled, other) - before).abs().amax((0, 1, 2)) > 1e-4
    assert change.nonzero().tolist() == [[1, 2, 3]]
    assert size(head(frames, pooled + 1, features) - before) > 0.01 * size(before)
    # of as many dimensions as there are components
    assert torch.linalg.matrix_rank(before[0].flatten(1), rtol=1e-4) == 3


def test_there_is_no_such_head_without_frames_or_components() -> None:
    assert backbone_of(frame_components=0).frame_head is None
    assert backbone_of(frame_tokens=False).frame_head is None
    with pytest.raises(ValueError, match="frame_components is -1"):
        replace(BACKBONE, frame_components=-1)


def test_a_withheld_condition_leaves_courses_that_no_event_decides() -> None:
    backbone = backbone_of()
    perturb(backbone, 0.3)
    one, other = (window(name).unconditional() for name in ("hand", "foot"))
    torch.testing.assert_close(output(backbone, one), output(backbone, other))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.filterwarnings("error")
def test_rest_has_a_backbone_without_a_warning(form: dict) -> None:
    nothing = replace(VOCABULARY, trial_types=())
    backbone = Backbone(replace(BACKBONE, **form), nothing, N_FRAMES, CHANNELS, LATENT, 2)
    assert all(torch.isfinite(weights).all() for weights in backbone.parameters())
