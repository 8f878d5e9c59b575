"""Define the settings of the diffusion model and of its training."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = [
    "BackboneConfig",
    "DenoiserConfig",
    "DiffusionTraining",
    "ResponseConfig",
    "ScheduleConfig",
]


@dataclass(frozen=True)
class ScheduleConfig:
    """Configure the noise schedule.

    Attributes
    ----------
    kind : str
        ``angular``: θ uniform on (0, π/2).
        ``linear``: β linear between `beta_start` and `beta_end`.
        ``scaled_linear``: √β linear; the schedule that the code from which the paper's
        values come calls "linear".
    n_steps : int
        Number of discrete steps of the β schedules.
    beta_start, beta_end : float
        First and last β of the β schedules.
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


PATCH = 2  # latent voxels along each axis of a token of the architecture dit
ARCHITECTURES = ("hybrid", "cnn", "transformer", "dit", "monai")


@dataclass(frozen=True)
class BackboneConfig:
    """Describe the architecture of the denoiser's backbone.

    Attributes
    ----------
    widths : tuple of int
        Number of channels of each level, finest first; each level halves the grid.
    blocks : tuple of int
        Number of blocks of each level, on the way down and again on the way up.
    transformer_depth : int
        Number of Transformer blocks that replace one convolutional block. Three have about
        as many weights as one convolutional block, so that 3 gives all architectures
        the same size.
    architecture : str
        ``hybrid``: the first `conv_levels` levels are convolutional, the others
        consist of Transformer blocks. ``cnn`` and ``transformer``: all levels of one kind.
        ``dit``: Transformer blocks of one width on patches of 2³ latent voxels, one after the
        other without skips (Peebles & Xie); `widths` and `blocks` then have one entry.
        ``monai``: MONAI's DiffusionModelUNet, with widths that give it as many
        parameters as the hybrid has (needs the extra ``monai``).
    conv_levels : int
        Number of convolutional levels of the hybrid.
    condition_width : int
        Number of channels E of the condition.
    token_width : int or None
        Number of channels to which the condition tokens are projected before Transformer
        blocks attend to them; None leaves them at `condition_width`.
    head_width : int
        Number of channels of an attention head.
    cross_attention : bool
        Whether Transformer blocks attend to the condition tokens; without it the condition
        enters by AdaLN-Zero alone.
    frame_tokens : bool
        Whether the events enter as one token per frame; without them the condition is
        the run's attributes alone (in the paper: a class per task).
    anatomy : bool
        Whether mean and noise level of the run (its carrier) enter as channels.
    positions : bool
        Whether blocks of every level are given the places of their voxels; without it only
        Transformer blocks are.
    normalised_condition : bool
        Whether every part of the condition is normalised before the parts are added, so that
        none is louder than the others by its size alone.
    frame_components : int
        Number J of maps, each times a course that the events of a frame decide, that are
        added to the output; 0 for none. Needs `frame_tokens`.
    zero_gates : bool
        Whether blocks start as the identity (AdaLN-Zero), as in the paper. The output starts
        at zero in any case; zero gates before it delay the learning of the condition.
    stem : int
        Latent voxels along each axis that are folded into channels before the first level and
        unfolded after the last: 1, or 2 for a finest level of an eighth as many voxels.
        ``dit`` has patches of its own, and ``monai`` a finer level in its place.
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
    positions: bool = True
    normalised_condition: bool = True
    frame_components: int = 32
    zero_gates: bool = False
    stem: int = field(default=1, metadata={"new": True})

    def __post_init__(self) -> None:
        """Refuse an architecture that does not exist, and levels that do not match."""
        if self.frame_components < 0:
            raise ValueError(f"frame_components is {self.frame_components}; expected 0 or more")
        if self.stem not in (1, 2):
            raise ValueError(f"stem is {self.stem}; expected 1 or 2")
        if self.architecture not in ARCHITECTURES:
            raise ValueError(
                f"architecture is {self.architecture!r}; expected one of {', '.join(ARCHITECTURES)}"
            )
        if len(self.blocks) != len(self.widths) or not self.widths:
            raise ValueError(
                f"widths has {len(self.widths)} levels and blocks {len(self.blocks)}; "
                "expected as many, at least one"
            )
        if self.architecture == "dit" and len(self.widths) != 1:
            raise ValueError(
                f"architecture=dit with the widths {self.widths}; expected one width, as in "
                "widths=[384] with blocks=[12]"
            )
        if self.architecture == "monai":  # computes widths of its own
            return
        for level, width in enumerate(self.widths):
            if not self.is_convolutional(level) and width % self.head_width:
                raise ValueError(
                    f"a level of Transformer blocks has the width {width}; expected a multiple of "
                    f"head_width, which is {self.head_width}"
                )

    def is_convolutional(self, level: int) -> bool:
        """Return whether a level consists of convolutional blocks."""
        levels = {"cnn": len(self.widths), "transformer": 0, "dit": 0}
        return level < levels.get(self.architecture, self.conv_levels)

    @property
    def grid_multiple(self) -> int:
        """What must divide each axis of the latent grid: the stem, and halves of the levels."""
        return PATCH if self.architecture == "dit" else self.stem * 2 ** (len(self.widths) - 1)

    @property
    def modulates_frames(self) -> bool:
        """Whether maps modulated frame by frame are added to the output."""
        return self.frame_tokens and self.frame_components > 0

    @property
    def attends(self) -> bool:
        """Whether any block attends to the condition tokens."""
        return self.cross_attention and not all(
            self.is_convolutional(level) for level in range(len(self.widths))
        )


@dataclass(frozen=True)
class ResponseConfig:
    """Configure the response model: the mean of the latents, given events and anatomy.

    Attributes
    ----------
    kind : str
        ``network``: the group GLM, shrunk, and a network that predicts individual differences
        from the mean image. ``glm``: the group GLM alone. ``none``: no response model; the
        denoiser learns the responses, as in the paper.
    rank : int
        Number J of spatial basis maps.
    width : int
        Hidden channels of the network.
    steps : int
        Largest number of training steps of the network; participants who are left out choose.
    individual_fields : int
        Number of smooth fields that make up each of the individual differences: gain,
        displacement and latency; 0 gives all participants of one anatomy the same response.
    """

    kind: str = "network"
    rank: int = 16
    width: int = 16
    steps: int = 120
    individual_fields: int = 32

    def __post_init__(self) -> None:
        """Refuse values that do not exist."""
        if self.kind not in ("network", "glm", "none"):
            raise ValueError(f"response.kind is {self.kind!r}; expected network, glm or none")
        for name, least in (("rank", 1), ("width", 1), ("steps", 0), ("individual_fields", 0)):
            if getattr(self, name) < least:
                raise ValueError(
                    f"response.{name} is {getattr(self, name)}; expected at least {least}"
                )


@dataclass(frozen=True)
class DenoiserConfig:
    """Describe the diffusion model.

    Attributes
    ----------
    n_frames : int
        Number of frames T of a window.
    prediction : str
        Target of the network: ``v``, or ``epsilon`` as in the paper.
    schedule : ScheduleConfig
        Noise schedule.
    noise : str
        ``coloured``: noise with the autocovariance of the data. ``white``: white noise, as in
        the paper.
    noise_modes : int
        Number of large-scale spatial modes (networks) of coloured noise; 0
        leaves it stationary in space.
    mode_width : int
        Hidden channels of the network that reads from a noisy window how loud each mode of the
        noise is in it; 0 for none. It counts with coloured noise that has modes, and with
        ``prediction=v``.
    noise_participant_rank : int
        Largest number of components of the individual differences between participants'
        networks; 0 gives every participant the same networks.
    backbone : BackboneConfig
        Architecture of the network.
    """

    n_frames: int = 16
    prediction: str = "v"
    noise: str = "coloured"
    noise_modes: int = 256
    noise_participant_rank: int = field(default=32, metadata={"formerly": "noise_people"})
    mode_width: int = field(default=0, metadata={"new": True})
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)

    def __post_init__(self) -> None:
        """Refuse values that do not exist."""
        if self.n_frames < 1:
            raise ValueError(f"n_frames is {self.n_frames}; expected at least 1")
        if self.prediction not in ("v", "epsilon"):
            raise ValueError(f"prediction is {self.prediction!r}; expected v or epsilon")
        if self.noise not in ("coloured", "white"):
            raise ValueError(f"noise is {self.noise!r}; expected coloured or white")
        for name in ("noise_modes", "noise_participant_rank", "mode_width"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 0 or more")

    @property
    def reads_modes(self) -> bool:
        """Whether a network reads how loud each mode of the noise is in a window."""
        modes = self.noise == "coloured" and self.noise_modes > 0 and self.n_frames > 1
        return self.mode_width > 0 and modes and self.prediction == "v"


@dataclass(frozen=True)
class DiffusionTraining:
    """Configure the training of the denoiser.

    Attributes
    ----------
    learning_rate : float
        Peak learning rate of AdamW, reached by a linear warm-up and followed by half a cosine.
    weight_decay : float
        Weight decay of AdamW.
    betas : tuple of float
        Decay rates β₁ and β₂ of AdamW's moment estimates.
    batch_size : int
        Number of windows per training step, over all processes.
    micro_batch : int or None
        Number of windows that a process holds at once; gradients are accumulated over its
        share of the batch. None processes the whole share at once.
    compile : bool
        Whether `torch.compile` compiles the backbone; this needs a C++
        compiler (CPU) or Triton (GPU) and takes minutes at the start.
    warmup : float
        Share of the training over which the learning rate rises, in [0, 1].
    gradient_clip : float
        Largest norm of the gradient.
    ema_decay : float
        Largest decay of the exponential moving average of the weights.
    condition_dropout, anatomy_dropout : float
        Share of the windows from which condition, or anatomy, is withheld, in [0, 1].
    onset_share : float
        Share of the windows that start at an event's onset, in [0, 1]; the others start
        anywhere.
    regression_share : float
        Share of the training in which the denoiser regresses on the participants' fitted
        responses before it turns to the diffusion targets, in [0, 1); it counts only where
        there is no response model.
    validation_share : float
        Share of the training participants that the denoiser does not learn from, in [0, 1):
        they choose its weights along the training, and its gate. At least four, if these are no
        more than a third; 0 for nobody.
    patience : int
        Number of checks by the validation participants (six, evenly spread over the training) in
        which the loss that the denoiser takes from them may grow by less than a ten-thousandth,
        one after the other, before the training ends; 0 trains to the last step.
    gate : bool
        Whether the denoiser's share is scaled, angle by angle, by what the validation
        participants support; a network that has learned nothing yet then does no harm. Without
        such participants it is left out where responses have a model of their own.
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
    regression_share: float = 0.7
    validation_share: float = 0.2
    patience: int = 3
    gate: bool = True

    def __post_init__(self) -> None:
        """Refuse an empty batch, and shares and patience out of range."""
        for name in ("regression_share", "validation_share"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 0 or more, under 1")
        if self.patience < 0:
            raise ValueError(f"patience is {self.patience}; expected 0 or more")
        for name in ("batch_size", "micro_batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; expected at least 1")
