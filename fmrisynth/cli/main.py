"""Run the command line, after the BIDS-App convention: options in, exit code out."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from fmrisynth import __version__
from fmrisynth.bids.locations import check_output_dir
from fmrisynth.bids.sources import require_dataset
from fmrisynth.cli.log import has_started, start_log
from fmrisynth.cli.options import app_options
from fmrisynth.cli.parsing import BidsAppCommand
from fmrisynth.cli.signals import ending_on_sigterm
from fmrisynth.errors import FmrisynthError, InputOutputError, UsageError
from fmrisynth.workflow.ending import next_steps
from fmrisynth.workflow.settings import LEVELS, Settings

__all__ = ["command", "main"]

UNKNOWN_LEVEL = 17  # exit code of the BIDS execution specification
USAGE = 64

log = logging.getLogger("fmrisynth")


def _level(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    """Refuse an unknown analysis level with the exit code that the specification has for it."""
    if value not in LEVELS:
        click.echo(
            f"fmrisynth: unknown analysis level {value!r}; expected {' or '.join(LEVELS)}.",
            err=True,
        )
        sys.exit(UNKNOWN_LEVEL)
    return value


@click.command(
    cls=BidsAppCommand,
    params=app_options(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.argument("bids_dir", type=click.Path(path_type=Path))
@click.argument("output_dir", type=click.Path(path_type=Path))
@click.argument("analysis_level", callback=_level)
@click.version_option(__version__, message="%(prog)s %(version)s")
def command(
    analysis_level: str,
    dry_run: bool,
    verbose: int,
    config_file: Path | None,  # its options have become those of this call
    notrack: bool,
    **options: Any,
) -> None:
    """Learn task fMRI from a BIDS dataset and write synthetic runs as BIDS derivatives.

    participant   learn (or load) a model, write synthetic runs
    group         compare them with held-out real runs, write the report
    """
    settings = Settings(**options)
    _check(settings, analysis_level)
    if dry_run:
        from fmrisynth.cli.dry_run import preview

        click.echo(preview(settings, analysis_level))
        return
    start_log(settings.output_dir, verbose=verbose > 0)
    log.info("fmrisynth %s: %s", __version__, " ".join(sys.argv[1:]))
    started = time.monotonic()
    _run(settings, analysis_level)
    log.info("%s level done in %.0f s", analysis_level, time.monotonic() - started)
    log.info("%s", next_steps(settings, analysis_level))


def _check(settings: Settings, level: str) -> None:
    """Refuse what can be known to be wrong before anything is read or created."""
    if level != "group" and settings.reports_only:
        raise UsageError("--reports-only belongs to the group level, which writes the reports.")
    if level != "group" and settings.synthetic:
        raise UsageError(
            "--synthetic belongs to the group level, which judges the runs of other programs."
        )
    require_dataset(settings.bids_dir)
    check_output_dir(settings.bids_dir, settings.output_dir, settings.derivatives.values())
    _ = settings.config  # raises on a wrong --set


def _run(settings: Settings, level: str) -> None:
    """Carry out a level; what does the work, torch first, is loaded here and not before."""
    from fmrisynth.runtime.threads import limit_threads

    threads = settings.omp_nthreads
    limit_threads(threads or settings.processes, threads or 1)
    if level == "participant":
        from fmrisynth.workflow.participant import run_participant as run
    else:
        from fmrisynth.workflow.group import run_group as run
    run(settings)


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with a code of the BIDS execution specification."""
    _prepare_surroundings()
    try:
        with ending_on_sigterm():
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


def _prepare_surroundings() -> None:
    """Set what libraries look for in the environment when they are loaded."""
    # Threads that wait are not to spin: two calls on the same cores would take ten times as long
    # as one after the other.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # 1,024 is the default of many systems
        resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    # a user without HOME and without an entry in passwd
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = os.sep


def _fail(message: str, code: int) -> NoReturn:
    """Say what is wrong, in the log too, and exit."""
    if has_started():
        log.error("%s", message)
    else:
        click.echo(f"fmrisynth: {message}", err=True)
    sys.exit(code)
