"""The command line, after the BIDS-App convention: options in, exit code out."""

from __future__ import annotations

import errno
import logging
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from fmrisynth import __version__
from fmrisynth.bids.locations import check_output_dir
from fmrisynth.bids.selection import Selection, read_filter_file
from fmrisynth.bids.sources import require_dataset
from fmrisynth.devices import available_cpus
from fmrisynth.diffusion.sampler import SAMPLERS
from fmrisynth.errors import FmrisynthError, InputOutputError
from fmrisynth.logs import has_started, start_log
from fmrisynth.pipeline import Settings, run_group, run_participant
from fmrisynth.presets import PRESETS

__all__ = ["command", "main"]

UNKNOWN_LEVEL = 17  # exit code of the BIDS execution specification
USAGE = 64
LEVELS = {"participant": run_participant, "group": run_group}

log = logging.getLogger("fmrisynth")


class _ListOption(click.Option):
    """An option that takes several words, ``--participant-label 01 02``, as peers do."""


class _BidsAppCommand(click.Command):
    """Lets list options take every word up to the next option."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Repeat a list option's name before each of its words, then parse as usual."""
        options = [p for p in self.params if isinstance(p, click.Option)]
        lists = {n for p in options if isinstance(p, _ListOption) for n in p.opts}
        single = {n for p in options if not (p.is_flag or p.count) for n in p.opts} - lists
        return super().parse_args(context, _spread(args, lists, single))


def _spread(
    args: Sequence[str], lists: set[str], single: set[str], positional: int = 3
) -> list[str]:
    """Turn ``--label a b`` into ``--label a --label b``.

    Words behind a list option are its values up to the next option; at the end
    of the line, those that the positional arguments still need are theirs.

    Parameters
    ----------
    args : sequence of str
        The words.
    lists, single : set of str
        Names of options that take several words, and one.
    positional : int
        Arguments that the command needs.
    """
    spread: list[str] = []
    position = 0
    while position < len(args):
        word = args[position]
        position += 1
        if word in lists:
            end = position
            while end < len(args) and not _is_option(args[end]):
                end += 1
            reserved = max(0, positional) if end == len(args) else 0
            values = args[position : max(position + 1, end - reserved)]
            spread += [part for value in values for part in (word, value)] or [word]
            position += len(values)
            continue
        spread.append(word)
        if word == "--":
            return spread + list(args[position:])
        if word in single and position < len(args):
            spread.append(args[position])
            position += 1
        elif not _is_option(word):
            positional -= 1
    return spread


def _is_option(word: str) -> bool:
    return word.startswith("-") and len(word) > 1


def _seconds(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> float | None:
    """Read ``HH:MM:SS`` (or ``MM:SS``, or seconds)."""
    if value is None:
        return None
    match = re.fullmatch(r"(?:(?:(\d+):)?(\d+):)?(\d+)", value)
    hours, minutes, seconds = (int(g or 0) for g in match.groups()) if match else (0, 0, 0)
    if not (total := 3600 * hours + 60 * minutes + seconds):
        raise click.BadParameter(f"{value!r} is not a time; expected HH:MM:SS, such as 01:30:00.")
    return float(total)


def _assignments(
    _context: click.Context, _parameter: click.Parameter, values: Sequence[str]
) -> dict[str, str]:
    """Read ``NAME=VALUE`` pairs."""
    pairs = [value.partition("=") for value in values]
    if wrong := [name for name, equals, _ in pairs if not equals]:
        raise click.BadParameter(f"{wrong[0]!r} has no '='; expected NAME=VALUE.")
    return {name: value for name, _, value in pairs}


def _derivatives(
    _context: click.Context, _parameter: click.Parameter, values: Sequence[str]
) -> dict[str, Path]:
    """Read ``[NAME=]PATH`` words."""
    named: dict[str, Path] = {}
    for value in values:
        name, equals, path = value.partition("=")
        root = Path(path if equals else value)
        key = own = name if equals else root.resolve().name
        count = 1
        while key in named and named[key] != root:  # two datasets of one name are two
            count += 1
            key = f"{own}{count}"
        named[key] = root
    return named


def _level(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    """Refuse an unknown analysis level with the exit code that the specification has for it."""
    if value not in LEVELS:
        click.echo(
            f"fmrisynth: unknown analysis level {value!r}; expected participant or group.", err=True
        )
        sys.exit(UNKNOWN_LEVEL)
    return value


@click.command(cls=_BidsAppCommand, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("bids_dir", type=click.Path(path_type=Path))
@click.argument("output_dir", type=click.Path(path_type=Path))
@click.argument("analysis_level", callback=_level)
@click.option(
    "--participant-label",
    "--participant_label",
    cls=_ListOption,
    multiple=True,
    metavar="LABEL...",
    help="Write runs of these participants only (the model learns "
    "from all of the dataset that it may learn from). With or without 'sub-'.",
)
@click.option(
    "--session-id",
    "--session-label",
    "--session_label",
    cls=_ListOption,
    multiple=True,
    metavar="LABEL...",
    help="Use these sessions only.",
)
@click.option(
    "-t",
    "--task-id",
    "--task_id",
    cls=_ListOption,
    multiple=True,
    metavar="LABEL...",
    help="Use these tasks only.",
)
@click.option(
    "--space",
    metavar="NAME[:res-R]",
    help="Space of the preprocessed images. [default: MNI152NLin2009cAsym where there is one]",
)
@click.option(
    "--bids-filter-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="JSON file of entity filters, in fMRIPrep's form.",
)
@click.option(
    "-d",
    "--derivatives",
    cls=_ListOption,
    multiple=True,
    callback=_derivatives,
    metavar="[NAME=]PATH...",
    help="Preprocessed derivatives to read. [default: those under BIDS_DIR/derivatives]",
)
@click.option(
    "--model",
    "model_dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Use this trained model. [default: OUTPUT_DIR/model, trained if it is not there]",
)
@click.option("--train-only", is_flag=True, help="Train the model and write no runs.")
@click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    default="demo",
    show_default=True,
    help="Size and form of the model.",
)
@click.option(
    "--set",
    "assignments",
    multiple=True,
    callback=_assignments,
    metavar="NAME=VALUE",
    help="Change one setting of the preset, such as denoiser.evoked.enabled=false. "
    "May be repeated.",
)
@click.option(
    "--max-steps",
    type=click.IntRange(1),
    metavar="N",
    help="Steps of each of the two trainings; makes a training repeatable. [default: the preset's]",
)
@click.option(
    "--max-time",
    callback=_seconds,
    metavar="HH:MM:SS",
    help="Wall-clock time for training; the learning rate's schedule fits it.",
)
@click.option(
    "--n-samples",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="Synthetic copies of each run, told apart by run-.",
)
@click.option(
    "--guidance",
    type=click.FloatRange(0),
    metavar="W",
    help="Amplitude of the evoked response (1: as learned). [default: the model's]",
)
@click.option("--sampler", type=click.Choice(list(SAMPLERS)), help="[default: the model's]")
@click.option(
    "--sampling-steps",
    type=click.IntRange(1),
    metavar="N",
    help="Denoising steps. [default: the model's]",
)
@click.option(
    "--random-seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    metavar="N",
    help="Seed of the split, the training and the synthetic noise.",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where to compute; cuda is an error if there is none.",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "32-true", "bf16-mixed"]),
    default="auto",
    show_default=True,
    help="Of the networks; auto takes bf16 where it is fast.",
)
@click.option(
    "--nprocs",
    "--n-cpus",
    "--nthreads",
    type=click.IntRange(1),
    metavar="N",
    help="Processes and threads. [default: the CPUs that this process may use]",
)
@click.option(
    "--skip-bad-runs",
    is_flag=True,
    help="Exit with 0 although some runs of the dataset could not be used.",
)
@click.option(
    "-w",
    "--work-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Caches and unfinished trainings, kept for later. [default: OUTPUT_DIR/work, "
    "removed when done]",
)
@click.option("-v", "--verbose", count=True, help="Show what goes into the log file.")
@click.version_option(__version__, message="%(prog)s %(version)s")
def command(bids_dir: Path, output_dir: Path, analysis_level: str, **options: Any) -> None:
    """Learn task fMRI from a BIDS dataset and write synthetic runs as BIDS derivatives.

    ANALYSIS_LEVEL participant learns (or loads) a model and writes synthetic runs;
    group compares them with held-out real runs and writes a report.
    """
    settings = _settings(bids_dir, output_dir, options)
    require_dataset(bids_dir)  # before anything is created
    check_output_dir(bids_dir, output_dir, settings.derivatives.values())
    start_log(output_dir, verbose=options["verbose"] > 0)
    log.info("fmrisynth %s: %s", __version__, " ".join(sys.argv[1:]))
    started = time.monotonic()
    LEVELS[analysis_level](settings)
    log.info("%s level done in %.0f s", analysis_level, time.monotonic() - started)


def _settings(bids_dir: Path, output_dir: Path, options: Mapping[str, Any]) -> Settings:
    """Resolve the options."""
    import torch

    nprocs = options["nprocs"] or available_cpus()
    torch.set_num_threads(nprocs)
    filters = options["bids_filter_file"]
    return Settings(
        bids_dir=bids_dir,
        output_dir=output_dir,
        selection=Selection(
            participants=options["participant_label"],
            sessions=options["session_id"],
            tasks=options["task_id"],
            space=options["space"],
            filters=read_filter_file(filters) if filters else {},
        ),
        derivatives=options["derivatives"],
        model_dir=options["model_dir"],
        work_dir=options["work_dir"],
        preset=options["preset"],
        assignments=options["assignments"],
        train_only=options["train_only"],
        max_steps=options["max_steps"],
        max_seconds=options["max_time"],
        n_samples=options["n_samples"],
        guidance=options["guidance"],
        sampler=options["sampler"],
        sampling_steps=options["sampling_steps"],
        seed=options["random_seed"],
        device=options["device"],
        precision=options["precision"],
        nprocs=nprocs,
        skip_bad_runs=options["skip_bad_runs"],
    )


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with a code of the BIDS execution specification."""
    try:
        command.main(args=None if args is None else list(args), standalone_mode=False)
    except FmrisynthError as error:
        _fail(str(error), error.exit_code)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.Abort:
        _fail("interrupted", 130)
    except click.ClickException as error:
        error.show()
        sys.exit(USAGE)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            _fail(
                f"{error}; free some space and run the same command again.",
                InputOutputError.exit_code,
            )
        raise
    sys.exit(0)


def _fail(message: str, code: int) -> NoReturn:
    """Say what is wrong, in the log too, and exit."""
    if has_started():
        log.error("%s", message)
    else:
        click.echo(f"fmrisynth: {message}", err=True)
    sys.exit(code)
