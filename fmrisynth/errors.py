"""Define the errors that a user can meet, with their exit codes.

The codes are those of the BIDS execution specification, which borrows the
higher ones from ``sysexits.h``::

    FmrisynthError            1   anything that stopped the run
    ├── NotBIDSError         16   the input is not a BIDS dataset
    ├── NoMatchError         18   the filters matched nothing
    ├── UsageError           64   options that contradict each other
    ├── DataError            65   a file of the dataset cannot be used
    ├── ModelError           65   a model directory cannot be used
    ├── NoInputError         66   an input path does not exist
    ├── OutputError          73   the output cannot be created there
    └── InputOutputError     74   reading or writing failed half-way

Every message says what was found, what was expected, in which file, and what
to do. The command line prints it without a traceback.
"""

from __future__ import annotations

__all__ = [
    "DataError",
    "FmrisynthError",
    "InputOutputError",
    "ModelError",
    "NoInputError",
    "NoMatchError",
    "NotBIDSError",
    "OutputError",
    "UsageError",
]


class FmrisynthError(Exception):
    """Anything stopped the run; base of every error that is shown without a traceback."""

    exit_code = 1


class NotBIDSError(FmrisynthError):
    """The input directory is not a BIDS dataset."""

    exit_code = 16


class NoMatchError(FmrisynthError):
    """The filters leave no run of the dataset."""

    exit_code = 18


class UsageError(FmrisynthError):
    """Options contradict each other or cannot be met."""

    exit_code = 64


class DataError(FmrisynthError):
    """A file of the dataset is damaged or contradicts itself."""

    exit_code = 65


class ModelError(FmrisynthError):
    """A model directory is missing, damaged or unsuitable for the call."""

    exit_code = 65


class NoInputError(FmrisynthError):
    """An input path does not exist."""

    exit_code = 66


class OutputError(FmrisynthError):
    """The output directory cannot be created or lies in the input."""

    exit_code = 73


class InputOutputError(FmrisynthError):
    """Reading or writing failed half-way (disk full, file gone)."""

    exit_code = 74
