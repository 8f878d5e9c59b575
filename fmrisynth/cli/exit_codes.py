"""Say what the exit codes of the command line mean, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping

from fmrisynth.cli.signals import EXIT_CODE

__all__ = ["EXIT_CODES"]

EXIT_CODES: Mapping[int, str] = {
    0: "done",
    1: "something else stopped it; also a training that a signal ended after its state was saved",
    16: "the input is not a BIDS dataset, or the validator found errors in it",
    17: "unknown analysis level",
    18: "the filters matched nothing; the message lists what there is",
    64: "wrong or contradictory options",
    65: "a file of the dataset, or a model, cannot be used. One bad run of many gives this code "
    "too, after all others were written, unless `--skip-bad-runs` is given",
    66: "an input path does not exist",
    73: "the output cannot be created there, such as inside the input",
    74: "reading or writing failed half-way, such as a full disk",
    130: "interrupted from the keyboard",
    EXIT_CODE: "ended by `SIGTERM`, everything half-written removed",
}
"""Meaning of each code; those up to 74 are of the BIDS execution specification."""
