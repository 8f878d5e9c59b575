"""The options of the command line: names, values, and what their help says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from fmrisynth.choices import BASELINE_NAMES, GROUP_GLM, NO_BASELINE, PRESET_NAMES, SAMPLER_NAMES
from fmrisynth.cli.parsing import (
    ListOption,
    assignments,
    baselines,
    config_file,
    events_tables,
    gigabytes,
    named_paths,
    seconds,
)

__all__ = ["app_options"]

Decorated = Callable[..., Any]

_OPTIONS = (
    click.option(
        "--participant-label",
        cls=ListOption,
        multiple=True,
        metavar="LABEL...",
        help="Write runs of these participants only (the model learns "
        "from all of the dataset that it may learn from). With or without 'sub-'.",
    ),
    click.option(
        "--session-id",
        "--session-label",
        cls=ListOption,
        multiple=True,
        metavar="LABEL...",
        help="Use these sessions only.",
    ),
    click.option(
        "-t",
        "--task-id",
        cls=ListOption,
        multiple=True,
        metavar="LABEL...",
        help="Use these tasks only.",
    ),
    click.option(
        "--space",
        metavar="NAME[:res-R]",
        help="Space of the preprocessed images. [default: MNI152NLin2009cAsym where there is one]",
    ),
    click.option(
        "--bids-filter-file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="JSON file of entity filters, in fMRIPrep's form.",
    ),
    click.option(
        "-d",
        "--derivatives",
        cls=ListOption,
        multiple=True,
        callback=named_paths,
        metavar="[NAME=]PATH...",
        help="Preprocessed derivatives to read. [default: those under BIDS_DIR/derivatives]",
    ),
    click.option(
        "--bids-database-dir",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Keep an index of the datasets here, which makes the next call find the runs fast.",
    ),
    click.option(
        "--skip-bids-validation",
        is_flag=True,
        help="Do not validate BIDS_DIR. [default: the participant level validates a raw dataset "
        "if bids-validator-deno is installed]",
    ),
    click.option(
        "--config-file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        is_eager=True,
        callback=config_file,
        help="TOML file of options, by their names here; those of the command line win over it.",
    ),
    click.option(
        "--model",
        "model_dir",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Use this trained model. [default: OUTPUT_DIR/model, trained if it is not there]",
    ),
    click.option("--train-only", is_flag=True, help="Train the model and write no runs."),
    click.option(
        "--preset",
        type=click.Choice(PRESET_NAMES),
        default="demo",
        show_default=True,
        help="Size and form of the model.",
    ),
    click.option(
        "--set",
        "assignments",
        multiple=True,
        callback=assignments,
        metavar="NAME=VALUE",
        help="Change one setting of the preset, such as denoiser.evoked.enabled=false. "
        "May be repeated.",
    ),
    click.option(
        "--max-steps",
        type=click.IntRange(1),
        metavar="N",
        help="Steps of each of the two trainings; makes a training repeatable. "
        "[default: the preset's]",
    ),
    click.option(
        "--max-time",
        callback=seconds,
        metavar="HH:MM:SS",
        help="Wall-clock time for training; the learning rate's schedule fits it.",
    ),
    click.option(
        "--n-samples",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        metavar="N",
        help="Synthetic copies of each run, told apart by run-.",
    ),
    click.option(
        "--events",
        cls=ListOption,
        multiple=True,
        callback=events_tables,
        metavar="[TASK=]FILE...",
        help="Write runs with the events of this table instead of their own: a design that nobody "
        "was scanned with.",
    ),
    click.option(
        "--guidance",
        type=click.FloatRange(0),
        metavar="W",
        help="Amplitude of the evoked response (1: as learned). [default: the model's]",
    ),
    click.option("--sampler", type=click.Choice(SAMPLER_NAMES), help="[default: the model's]"),
    click.option(
        "--sampling-steps",
        type=click.IntRange(1),
        metavar="N",
        help="Denoising steps. [default: the model's]",
    ),
    click.option(
        "--output-layout",
        type=click.Choice(["derivatives", "raw"]),
        default="derivatives",
        show_default=True,
        help="raw writes a tree that fMRIPrep takes as its input (rec-synth).",
    ),
    click.option(
        "--baselines",
        cls=ListOption,
        multiple=True,
        default=[GROUP_GLM],
        callback=baselines,
        show_default=True,
        metavar="NAME...",
        help=f"Group level: simulators to compare with ({', '.join(BASELINE_NAMES)}), or "
        f"{NO_BASELINE}.",
    ),
    click.option(
        "--compare",
        cls=ListOption,
        multiple=True,
        callback=named_paths,
        metavar="[NAME=]DIR...",
        help="Group level: other output directories of fmrisynth, as further rows of the table.",
    ),
    click.option(
        "--contrasts",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Group level: contrasts to compare besides the trial types, as JSON or as a BIDS "
        "Stats Model.",
    ),
    click.option(
        "--reports-only",
        is_flag=True,
        help="Group level: rebuild the pages from the comparison that is on disk.",
    ),
    click.option(
        "--random-seed",
        type=click.IntRange(0),
        default=0,
        show_default=True,
        metavar="N",
        help="Seed of the split, the training and the synthetic noise.",
    ),
    click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        show_default=True,
        help="Where to compute; cuda is an error if there is none.",
    ),
    click.option(
        "--precision",
        type=click.Choice(["auto", "32-true", "bf16-mixed"]),
        default="auto",
        show_default=True,
        help="Of the networks; auto takes bf16 where it is fast.",
    ),
    click.option(
        "--nprocs",
        "--n-cpus",
        "--nthreads",
        type=click.IntRange(1),
        metavar="N",
        help="Processes that read runs. [default: the CPUs that this process may use]",
    ),
    click.option(
        "--omp-nthreads",
        type=click.IntRange(1),
        metavar="N",
        help="Threads of each process. [default: as --nprocs for the networks, 1 for those that "
        "read runs]",
    ),
    click.option(
        "--mem",
        "--mem-gb",
        callback=gigabytes,
        metavar="GB",
        help="Memory to stay within, besides the model's: GB, or a number with K, M, G or T. Fewer "
        "processes are started; a run that does not fit is an error. [default: no limit]",
    ),
    click.option(
        "--skip-bad-runs",
        is_flag=True,
        help="Exit with 0 although some runs of the dataset could not be used.",
    ),
    click.option(
        "-w",
        "--work-dir",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Caches and unfinished trainings, kept for later. [default: OUTPUT_DIR/work, "
        "removed when done]",
    ),
    click.option(
        "--dry-run",
        is_flag=True,
        help="Print the settings, and what would be read and written; write nothing.",
    ),
    click.option(
        "--notrack",
        is_flag=True,
        help="Accepted because other apps have it; fmrisynth never sends anything anywhere.",
    ),
    click.option("-v", "--verbose", count=True, help="Show what goes into the log file."),
)


def app_options(function: Decorated) -> Decorated:
    """Give a command all options, in the order in which its help shows them."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function
