"""Settings of the diffusion model and its training."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = [
    "BackboneConfig",
    "DenoiserConfig",
    "DiffusionTraining",
    "EvokedConfig",
    "ScheduleConfig",
]


@dataclass(frozen=True)
class ScheduleConfig:
    """How angles are spread over training and sampling.

    Attributes
    ----------
    kind : str
        ``angular``: θ uniform on (0, π/2), this project's default.
        ``linear``: β linear between `beta_start` and `beta_end`.
        ``scaled_linear``: √β linear; what the code that the published values
        come from calls "linear".
    n_steps : int
        Discrete steps of the β schedules.
    beta_start, beta_end : float
        First and last β.
    """

    kind: str = "angular"
    n_steps: int = 1000
    beta_start: float = 0.0015
    beta_end: float = 0.0195

    def __post_init__(self) -> None:
        """Refuse a kind that does not exist."""
        if self.kind not in ("angular", "linear", "scaled_linear"):
            raise ValueError(
                f"schedule is {self.kind!r}; expected angular, linear or scaled_linear"
            )


ARCHITECTURES = ("hybrid", "cnn", "transformer", "monai")


@dataclass(frozen=True)
class BackboneConfig:
    """Shape of the backbone.

    Attributes
    ----------
    widths : tuple of int
        Channels of each level, finest first; each level halves the grid.
    blocks : tuple of int
        Blocks of each level, on the way down and again on the way up.
    transformer_depth : int
        Transformer blocks that take the place of one block on a level of
        Transformer blocks. One convolutional block has about the weights of
        three, so that with 3 the architectures are of one size.
    architecture : str
        ``hybrid``: the first `conv_levels` levels are convolutional, the others
        Transformer blocks. ``cnn`` and ``transformer``: all of one kind.
        ``monai``: MONAI's DiffusionModelUNet, with widths that give it as many
        parameters as the hybrid has (see `fmrisynth.model.denoiser.monai_unet`).
    conv_levels : int
        Convolutional levels of the hybrid.
    condition_width : int
        Channels E of the condition.
    token_width : int or None
        Channels that the condition tokens are widened to before Transformer
        blocks attend to them; None leaves them at `condition_width`.
    head_width : int
        Channels of an attention head.
    cross_attention : bool
        Whether Transformer blocks attend to the condition tokens.
    frame_tokens : bool
        One token per frame of the events; without them the condition is the
        run's attributes alone (the published form: a class).
    anatomy : bool
        Whether the carrier's mean and noise level enter as channels.
    """

    widths: tuple[int, ...] = (96, 192)
    blocks: tuple[int, ...] = (1, 2)
    transformer_depth: int = 1
    architecture: str = "hybrid"
    conv_levels: int = 1
    condition_width: int = 128
    token_width: int | None = None
    head_width: int = 32
    cross_attention: bool = True
    frame_tokens: bool = True
    anatomy: bool = True

    def __post_init__(self) -> None:
        """Refuse an architecture that does not exist, and levels that do not match."""
        if self.architecture not in ARCHITECTURES:
            raise ValueError(
                f"architecture is {self.architecture!r}; expected one of {', '.join(ARCHITECTURES)}"
            )
        if len(self.blocks) != len(self.widths) or not self.widths:
            raise ValueError(
                f"widths has {len(self.widths)} levels and blocks {len(self.blocks)}; "
                "expected as many, at least one"
            )

        if self.architecture == "monai":  # which has widths of its own
            return
        for level, width in enumerate(self.widths):
            if not self.is_convolutional(level) and width % self.head_width:
                raise ValueError(
                    f"a level of Transformer blocks has the width {width}; expected a multiple of "
                    f"head_width, which is {self.head_width}"
                )

    def is_convolutional(self, level: int) -> bool:
        """Whether a level is made of convolutional blocks."""
        levels = {"cnn": len(self.widths), "transformer": 0}
        return level < levels.get(self.architecture, self.conv_levels)

    @property
    def attends(self) -> bool:
        """Whether any block attends to the condition tokens."""
        return self.cross_attention and not all(
            self.is_convolutional(level) for level in range(len(self.widths))
        )


@dataclass(frozen=True)
class EvokedConfig:
    """The evoked-response pathway.

    Attributes
    ----------
    enabled : bool
        Whether there is one.
    rank : int
        Spatial basis maps J.
    start : str
        ``regression``: starts at the least-squares fit of the training latents,
        cut to `rank`. ``zero``: learned by the diffusion loss from nothing,
        which takes many more steps to reach the same maps.
    learning_rate_factor : float
        Its learning rate relative to the backbone's.
    people : int
        Components of how people's responses differ, at most; 0 gives everybody
        the same response.
    """

    enabled: bool = True
    rank: int = 16
    start: str = "regression"
    learning_rate_factor: float = 1.0
    people: int = 16

    def __post_init__(self) -> None:
        """Refuse values that do not exist."""
        if self.start not in ("regression", "zero"):
            raise ValueError(f"evoked.start is {self.start!r}; expected regression or zero")
        if self.rank < 1:
            raise ValueError(f"evoked.rank is {self.rank}; expected at least 1")
        if self.people < 0:
            raise ValueError(f"evoked.people is {self.people}; expected 0 or more")


@dataclass(frozen=True)
class DenoiserConfig:
    """What is diffused and how.

    Attributes
    ----------
    n_frames : int
        Frames T of a window.
    prediction : str
        ``v``, or ``epsilon`` as published.
    schedule : ScheduleConfig
        Noise schedule.
    noise : str
        ``coloured`` as the data (see `fmrisynth.model.noise`), or ``white`` as published.
    noise_modes : int
        Large-scale modes (networks) of coloured noise, see `fmrisynth.model.noise.modal`; 0
        leaves it stationary in space.
    noise_people : int
        Components of how people's networks differ, at most; 0 gives everybody
        the same.
    backbone : BackboneConfig
        Its shape.
    evoked : EvokedConfig
        The evoked-response pathway.
    """

    n_frames: int = 16
    prediction: str = "v"
    noise: str = "coloured"
    noise_modes: int = 64
    noise_people: int = 32
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    evoked: EvokedConfig = field(default_factory=EvokedConfig)

    def __post_init__(self) -> None:
        """Refuse values that do not exist."""
        if self.n_frames < 1:
            raise ValueError(f"n_frames is {self.n_frames}; expected at least 1")
        if self.prediction not in ("v", "epsilon"):
            raise ValueError(f"prediction is {self.prediction!r}; expected v or epsilon")
        if self.noise not in ("coloured", "white"):
            raise ValueError(f"noise is {self.noise!r}; expected coloured or white")
        for name in ("noise_modes", "noise_people"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 0 or more")


@dataclass(frozen=True)
class DiffusionTraining:
    """How the denoiser is trained.

    Attributes
    ----------
    learning_rate, weight_decay : float
        Of AdamW; the learning rate's peak.
    betas : tuple of float
        Of AdamW.
    batch_size : int
        Windows in a global batch.
    micro_batch : int or None
        Windows that a process handles at once; their gradients are accumulated.
        None for all of its share.
    compile : bool
        Whether `torch.compile` makes kernels for the backbone; it needs a C++
        compiler (CPU) or Triton (GPU), and minutes at the start.
    warmup : float
        Share of the budget spent warming up.
    gradient_clip : float
        Largest norm of the gradient.
    ema_decay : float
        Largest decay of the averaged weights.
    condition_dropout, anatomy_dropout : float
        Shares of windows whose condition, and anatomy, is withheld.
    onset_share : float
        Share of windows that start at an event's onset; the others anywhere.
    """

    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    batch_size: int = 16
    micro_batch: int | None = None
    compile: bool = False
    warmup: float = 0.05
    gradient_clip: float = 1.0
    ema_decay: float = 0.99
    condition_dropout: float = 0.05
    anatomy_dropout: float = 0.1
    onset_share: float = 0.5

    def __post_init__(self) -> None:
        """Refuse an empty batch."""
        for name in ("batch_size", "micro_batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; expected at least 1")
