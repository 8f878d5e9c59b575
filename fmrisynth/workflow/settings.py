"""Define what a call may ask for: every option, with its meaning, default and field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, get_args

from fmrisynth.bids.dataset_files import Layout
from fmrisynth.bids.selection import Selection
from fmrisynth.config.codec import override
from fmrisynth.config.model import CARRIERS, INDIVIDUALS, SAMPLER_NAMES, ModelConfig, SamplingConfig
from fmrisynth.config.presets import PRESETS, read_preset
from fmrisynth.runtime.resources import available_cpus
from fmrisynth.workflow.options import Option
from fmrisynth.workflow.words import (
    DEFAULT_BASELINES,
    read_assignments,
    read_baselines,
    read_events_tables,
    read_filters,
    read_further_datasets,
    read_gigabytes,
    read_named_paths,
    read_named_preset,
    read_noise,
    read_seconds,
)

__all__ = ["LEVELS", "Settings"]

LEVELS = ("participant", "group")

INPUT = "Input"
MODEL = "Model and training"
OUTPUT = "What is written"
SAMPLING = "Sampling"
EVALUATION = "Evaluation (group level)"
MACHINE = "Machine"


@dataclass(frozen=True)
class Settings:
    """Hold what a call asks for.

    Help, tables of the documentation, keys of the configuration file and Boutiques descriptor
    are made from the fields and from these descriptions, in Markdown, of which ``--help`` shows
    the first sentence. Links are relative to docs/reference.

    Attributes
    ----------
    bids_dir, output_dir : pathlib.Path
        Dataset to read, and folder to write to.
    participants : tuple of str
        Participants to write runs of, or to compare with. The model learns from every participant
        that is not held out, whatever is given here. Labels may have their prefix `sub-`.
    sessions : tuple of str
        Sessions to use, for learning as well as for synthesis.
    tasks : tuple of str
        Tasks to use, for learning as well as for synthesis.
    space : str or None
        Space of the preprocessed images. Without a resolution, that of most runs is taken.
    filters : mapping
        JSON file of entity filters in the form of fMRIPrep. An example is `{"bold": {"run": [1,
        2]}}`.
    derivatives : mapping of str to pathlib.Path
        Preprocessed datasets to read.
    use_raw : bool
        Read the raw images although derivatives exist. They must share one space.
    database_dir : pathlib.Path or None
        Folder that keeps an index of the datasets for faster calls. The next call then finds the
        runs in seconds; the index is rebuilt when runs were added or removed.
    skip_validation : bool
        Do not validate `BIDS_DIR`. See [validation](../how_to/own_data.md#validation).
    model_dir : pathlib.Path or None
        Trained model to use. Give the same one to the group level.
    preset : str
        Size and method of the model. See [presets](presets.md).
    assignments : mapping of str to str
        Change one setting of the preset; may be repeated. An example is `--set
        denoiser.noise=white`; all are listed among the [settings](settings.md).
    max_steps : int or None
        Steps of each of the two trainings. They are the autoencoder's and the diffusion model's;
        with `--max-time`, at most that many steps are taken.
    max_seconds : float or None
        Wall-clock time for training. The schedule of the learning rate is fitted to it.
    learn_from : mapping of str to pathlib.Path
        Further datasets to learn from, together with `BIDS_DIR`. Only participants of `BIDS_DIR`
        are written. All have to be in one space; repetition times, voxels, tasks and noise may
        differ. See [several datasets](../how_to/several_datasets.md).
    train_only : bool
        Train and save the model, but write no runs.
    n_samples : int
        Synthetic copies of each run. They differ by `run-`: copy *k* of run *r* becomes
        `run-((r−1)·N+k)`.
    individuals : {"own", "drawn", "group"} or None
        Whose responses the runs have. `own`: those of their participant, as far as
        the participant's other runs tell them, and never from the run that is imitated;
        participants are then recognisable. What the other runs leave open is drawn, as everything
        is of a participant with a single run. `drawn`: nobody's, with the variance of real
        participants. `group`: everybody alike, which is the default of a model that knows no
        individual differences.
    new_participants : int or None
        Write N participants who are nobody. They are `sub-synth0001` and so on, and are written
        instead of those of the dataset. Mean image, noise level, drift, mask, head motion,
        responses and noise are drawn; sessions, tasks, lengths and events are those of a training
        participant. No image is read where the model is there already. Not possible with the raw
        layout, which needs a T1w image.
    carrier : {"own", "drawn", "group-mean"} or None
        Whose mean image, noise level, drift and mask the synthetic runs have. `own`: those of
        the run that is imitated, which identify its participant. `drawn`: nobody's, drawn from
        how the training participants differ. `group-mean`: the mean participant's, without drift.
        Neither of the latter is possible with the raw layout, which needs a T1w image.
    events : mapping of str to pathlib.Path
        Write runs with these events instead of their own. This tries out a design that nobody was
        scanned with: its trial types must be among those that the model has learned for the task,
        and it must fit the shortest of the task's runs.
    layout : {"derivatives", "fmriprep", "raw"}
        Write BIDS derivatives, fMRIPrep's names, or raw BIDS as fMRIPrep's input. See
        [outputs](outputs.md).
    work_dir : pathlib.Path or None
        Folder of caches and unfinished trainings, which is kept.
    implant : pathlib.Path or None
        JSON or TOML file of effects to add to the synthetic runs. See [known
        effects](../how_to/known_effects.md).
    also : tuple of str
        Simpler outputs as well: parcels' `timeseries`, `maps` of the responses.
    skip_bad_runs : bool
        Exit with 0 although some runs could not be used.
    guidance : float or None
        Amplitude of the evoked response, 1 being as learned. Without a response model, it is the
        scale of classifier-free guidance.
    sampler : str or None
        Sampling algorithm.
    sampling_steps : int or None
        Number of denoising steps.
    noise : tuple of str
        Sources of noise to put into the runs. `networks` (what places have in common), `drift`,
        `decoder` noise (what the autoencoder loses) and `physiology` (what white matter and CSF
        fluctuate by) there are; `none` leaves all four out.
    seed : int
        Seed of split, training and synthetic noise.
    baselines : tuple of str
        Generators to compare with, or `none`. `statistics-only` is the model without its network;
        `group-glm` and `fmrisim` are simulators, of which `fmrisim` needs the extra of that name.
    compare : mapping of str to pathlib.Path
        Other outputs of fmrisynth, as further rows of the table. They must come from the same
        dataset with the same split.
    synthetic : mapping of str to pathlib.Path
        Judge the runs of another program in place of this output's. Each image is named like the
        real one that it imitates (`sub-01/func/sub-01_task-x_bold.nii.gz`); no model is needed.
        Participants without synthetic runs are taken for those that the program learned from.
        See [comparing generators](../how_to/compare.md#runs-of-another-program).
    sham : bool
        Show what is found where nothing happened, as a row `sham`. It is the real held-out runs
        with events that are moved and permuted at random: its effects are the level of false
        positives, beside which the others are read.
    contrasts : pathlib.Path or None
        JSON file of contrasts to compare besides the trial types. Its form is `{"task": {"name":
        {"trial_type": weight}}}` or that of a BIDS Stats Model.
    reports_only : bool
        Rebuild the pages from the last comparison. It is kept in `OUTPUT_DIR/group/evaluation`.
    device : {"auto", "cpu", "cuda"}
        Where to compute. `cuda` is an error where there is no CUDA device.
    precision : {"auto", "32-true", "bf16-mixed"}
        Precision of the networks. `auto` takes bf16 where it is the faster one.
    nprocs : int or None
        Number of processes that read runs. Affinity, SLURM's allocation and the cgroup's quota
        say how many CPUs are usable.
    omp_nthreads : int or None
        Threads of each process. Waiting threads leave the core to others (`OMP_WAIT_POLICY`,
        unless you set it).
    memory : float or None
        Memory to stay within, besides the model's. GB, or a number with K, M, G or T. Fewer
        processes are started: each is counted as 0.4 GB and six times its largest run as float32,
        ten times where baselines are written. A run that does not fit alone (1 GB and as many
        times its size) is an error before anything is computed.
    """

    bids_dir: Path
    output_dir: Path

    participants: Annotated[
        tuple[str, ...], Option("--participant-label", INPUT, "LABEL...", several=True)
    ] = ()
    sessions: Annotated[
        tuple[str, ...], Option("--session-id --session-label", INPUT, "LABEL...", several=True)
    ] = ()
    tasks: Annotated[tuple[str, ...], Option("-t --task-id", INPUT, "LABEL...", several=True)] = ()
    space: Annotated[
        str | None,
        Option(
            "--space",
            INPUT,
            "NAME[:cohort-C][:res-R]",
            absent="`MNI152NLin2009cAsym`, else another MNI space",
        ),
    ] = None
    filters: Annotated[
        Mapping[str, Any], Option("--bids-filter-file", INPUT, "FILE", read=read_filters)
    ] = field(default_factory=dict)
    derivatives: Annotated[
        Mapping[str, Path],
        Option(
            "-d --derivatives",
            INPUT,
            "[NAME=]PATH...",
            several=True,
            read=read_named_paths,
            absent="those under `BIDS_DIR/derivatives`",
        ),
    ] = field(default_factory=dict)
    use_raw: Annotated[bool, Option("--use-raw", INPUT)] = False
    database_dir: Annotated[Path | None, Option("--bids-database-dir", INPUT, "DIR")] = None
    skip_validation: Annotated[bool, Option("--skip-bids-validation", INPUT)] = False

    model_dir: Annotated[
        Path | None,
        Option("--model", MODEL, "DIR", absent="`OUTPUT_DIR/model`, else trained"),
    ] = None
    preset: Annotated[
        str, Option("--preset", MODEL, "NAME", choices=tuple(PRESETS), read=read_named_preset)
    ] = "demo"
    assignments: Annotated[
        Mapping[str, str],
        Option("--set", MODEL, "NAME=VALUE", repeated=True, read=read_assignments),
    ] = field(default_factory=dict)
    max_steps: Annotated[
        int | None, Option("--max-steps", MODEL, "N", minimum=1, absent="the preset's")
    ] = None
    max_seconds: Annotated[
        float | None, Option("--max-time", MODEL, "HH:MM:SS", read=read_seconds, absent="no limit")
    ] = None
    learn_from: Annotated[
        Mapping[str, Path],
        Option("--learn-from", MODEL, "[NAME=]DIR...", several=True, read=read_further_datasets),
    ] = field(default_factory=dict)
    train_only: Annotated[bool, Option("--train-only", MODEL)] = False

    n_samples: Annotated[int, Option("--n-samples", OUTPUT, "N", minimum=1)] = 1
    individuals: Annotated[
        str | None,
        Option(
            "--individuals",
            OUTPUT,
            choices=INDIVIDUALS,
            absent="`own`; `drawn` if new",
        ),
    ] = None
    new_participants: Annotated[
        int | None, Option("--new-participants", OUTPUT, "N", minimum=1, absent="none")
    ] = None
    carrier: Annotated[
        str | None,
        Option("--carrier", OUTPUT, choices=CARRIERS, absent="`own`; `drawn` if new"),
    ] = None
    events: Annotated[
        Mapping[str, Path],
        Option("--events", OUTPUT, "[TASK=]FILE...", several=True, read=read_events_tables),
    ] = field(default_factory=dict)
    layout: Annotated[Layout, Option("--output-layout", OUTPUT, choices=get_args(Layout))] = (
        "derivatives"
    )
    work_dir: Annotated[
        Path | None,
        Option("-w --work-dir", OUTPUT, "DIR", absent="`OUTPUT_DIR/work`, removed when done"),
    ] = None
    implant: Annotated[Path | None, Option("--implant", OUTPUT, "FILE")] = None
    also: Annotated[
        tuple[str, ...],
        Option("--also", OUTPUT, "KIND...", choices=("timeseries", "maps"), several=True),
    ] = ()
    skip_bad_runs: Annotated[bool, Option("--skip-bad-runs", OUTPUT)] = False

    guidance: Annotated[
        float | None, Option("--guidance", SAMPLING, "W", minimum=0.0, absent="the model's")
    ] = None
    sampler: Annotated[
        str | None, Option("--sampler", SAMPLING, choices=SAMPLER_NAMES, absent="the model's")
    ] = None
    sampling_steps: Annotated[
        int | None, Option("--sampling-steps", SAMPLING, "N", minimum=1, absent="the model's")
    ] = None
    noise: Annotated[
        tuple[str, ...],
        Option(
            "--noise", SAMPLING, "SOURCE...", several=True, read=read_noise, absent="the model's"
        ),
    ] = ()
    seed: Annotated[int, Option("--random-seed", SAMPLING, "N", minimum=0)] = 0

    baselines: Annotated[
        tuple[str, ...],
        Option("--baselines", EVALUATION, "NAME...", several=True, read=read_baselines),
    ] = DEFAULT_BASELINES
    compare: Annotated[
        Mapping[str, Path],
        Option("--compare", EVALUATION, "[NAME=]DIR...", several=True, read=read_named_paths),
    ] = field(default_factory=dict)
    synthetic: Annotated[
        Mapping[str, Path],
        Option("--synthetic", EVALUATION, "[NAME=]DIR...", several=True, read=read_named_paths),
    ] = field(default_factory=dict)
    sham: Annotated[bool, Option("--sham", EVALUATION)] = False
    contrasts: Annotated[Path | None, Option("--contrasts", EVALUATION, "FILE")] = None
    reports_only: Annotated[bool, Option("--reports-only", EVALUATION)] = False

    device: Annotated[str, Option("--device", MACHINE, choices=("auto", "cpu", "cuda"))] = "auto"
    precision: Annotated[
        str, Option("--precision", MACHINE, choices=("auto", "32-true", "bf16-mixed"))
    ] = "auto"
    nprocs: Annotated[
        int | None,
        Option("--nprocs --n-cpus --nthreads", MACHINE, "N", minimum=1, absent="the usable CPUs"),
    ] = None
    omp_nthreads: Annotated[
        int | None,
        Option(
            "--omp-nthreads",
            MACHINE,
            "N",
            minimum=1,
            absent="as `--nprocs` for the networks, 1 for processes that read runs",
        ),
    ] = None
    memory: Annotated[
        float | None,
        Option("--mem --mem-gb", MACHINE, "GB", read=read_gigabytes, absent="no limit"),
    ] = None

    @property
    def selection(self) -> Selection:
        """Runs that the call asks for."""
        return Selection(
            self.participants, self.sessions, self.tasks, self.space, filters=self.filters
        )

    @cached_property
    def processes(self) -> int:
        """Number of processes that read runs: as asked for, else the usable CPUs."""
        return self.nprocs or available_cpus()

    @property
    def model_path(self) -> Path:
        """Directory of the model: as asked for, else that of this output."""
        return self.model_dir or self.output_dir / "model"

    @property
    def work_path(self) -> Path:
        """Folder of caches and training states."""
        return self.work_dir or self.output_dir / "work"

    @property
    def evaluation_path(self) -> Path:
        """Folder of the comparison that ``--reports-only`` reads."""
        return self.output_dir / "group" / "evaluation"

    @property
    def simulating(self) -> bool:
        """Whether the group level writes baselines."""
        return bool(self.baselines) and not self.reports_only

    @cached_property
    def config(self) -> ModelConfig:
        """Configuration of the model: the preset with its overrides.

        Raises
        ------
        UsageError
            There is no such preset or setting, or a value does not fit.
        """
        return override(PRESETS[read_preset(self.preset)], self.assignments)

    def sampling(self, default: SamplingConfig) -> SamplingConfig:
        """Return how to sample: as asked for, else as the model does by default."""
        return replace(
            default,
            sampler=self.sampler or default.sampler,
            steps=self.sampling_steps or default.steps,
            guidance=default.guidance if self.guidance is None else self.guidance,
            **self._noise_sources(),
        )

    def _noise_sources(self) -> dict[str, bool]:
        """Return which sources of noise were asked for; nothing where the model decides."""
        if not self.noise:
            return {}
        return {
            "networks": "networks" in self.noise,
            "drift": "drift" in self.noise,
            "decoder_noise": "decoder" in self.noise,
            "physiology": "physiology" in self.noise,
        }
