"""Read events.tsv strictly, and give a reason for every refusal."""

from __future__ import annotations

import logging
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fmrisynth.bids.headers import check_present
from fmrisynth.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["UNNAMED_TRIAL_TYPE", "events_table_bytes", "read_events"]

log = logging.getLogger(__name__)

UNNAMED_TRIAL_TYPE = "event"  # the trial type of events in a file without a trial_type column
MOST_BEYOND = 0.25  # share of events that a run which was stopped early may lack
LONGEST_RESPONSE = 32.0  # s; an event that ended longer ago has no response left in the run
_MISSING = {"", "n/a", "na", "nan"}
_LARGEST_FILE = 64 * 2**20  # bytes; a million events


@dataclass(frozen=True)
class _Table:
    """The cells of a TSV file; `lines` are their line numbers."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]


def read_events(
    path: Path | None, *, duration: float | None = None, most_beyond: float = MOST_BEYOND
) -> pd.DataFrame:
    """Read the events of a run; a run without an events file has none.

    - Rows whose onset or trial_type is n/a are left out, and their number is logged.
    - A duration of n/a counts as 0: a brief event, as in nilearn.
    - Without a trial_type column every event has the trial type ``"event"``.
    - Negative onsets (before the first volume) are kept while their response
      reaches into the run, that is until 32 s after the end of the event.
    - Events that begin after the run's last volume are left out (logged) where they are few.
    - A `modulation` column is kept when all of it is numeric.
    - Events may overlap, and they need not be sorted in the file.

    Parameters
    ----------
    path : Path or None
        Tab-separated file in UTF-8; byte-order mark and CRLF are understood. None for a run
        without a task.
    duration : float, optional
        Length of the run (s).
    most_beyond : float
        Share of the events that may begin after the run.

    Returns
    -------
    DataFrame
        Columns onset (s), duration (s), trial_type (str) and, where present,
        modulation; sorted by onset.

    Raises
    ------
    DataError
        When the file is no such table, has no usable event, holds impossible
        numbers, or too many onsets lie beyond the run.
    """
    if path is None:
        import pandas as pd

        columns = {"onset": float, "duration": float, "trial_type": str}
        return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in columns.items()})
    table = _read_table(path)
    for column in ("onset", "duration"):
        if column not in table.columns:
            raise DataError(
                f"{path} has no column {column!r}; it has: {', '.join(table.columns)}. BIDS asks "
                "for onset and duration (in s), separated by tabs."
            )
    frame = _usable_rows(table, path)
    if frame.empty:
        raise DataError(f"{path} holds no usable event (of {len(table.rows)} rows)")
    if duration is not None:
        frame = _drop_beyond(frame, duration, most_beyond, path)
    frame = _drop_long_past(frame, path)
    return frame.sort_values("onset", kind="stable", ignore_index=True)


def events_table_bytes(path: Path) -> bytes:
    """Read an events file as bytes that may stand in a BIDS dataset.

    The bytes are unchanged, unless other programs than this one would stumble
    over them: a byte-order mark, onset and duration not in the first columns,
    spaces around names and cells, blank lines, unnamed columns, old Mac ends of
    line. Then the same cells are written cleanly; a column without a name, such
    as the index that pandas writes, is left out.

    Raises
    ------
    DataError
        When the file is not a table with these columns.
    """
    raw = _read_bytes(path)
    table = _read_table(path)
    first = [column for column in ("onset", "duration") if column in table.columns]
    if len(first) < 2:
        raise DataError(f"{path} has no columns onset and duration")
    order = [table.columns.index(column) for column in first]
    order += [i for i, name in enumerate(table.columns) if name and i not in order]
    rows = [table.columns, *table.rows]
    clean = "".join("\t".join(row[i] for i in order) + "\n" for row in rows).encode("utf-8")
    unchanged = raw.replace(b"\r\n", b"\n")
    return raw if unchanged.removesuffix(b"\n") == clean.removesuffix(b"\n") else clean


def _read_bytes(path: Path) -> bytes:
    check_present(path)
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise DataError(f"{path} is larger than {_LARGEST_FILE >> 20} MiB: no events table")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _read_table(path: Path) -> _Table:
    try:
        text = _read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    # Not str.splitlines: it also splits at characters that may stand in a cell.
    numbered = [
        (number, line)
        for number, line in enumerate(re.split("\r\n|\n|\r", text), start=1)
        if line.strip()
    ]
    if not numbered:
        raise DataError(f"{path} is blank; a header line with onset and duration is expected")
    header = numbered[0][1]
    columns = [cell.strip() for cell in header.rstrip("\t").split("\t")]
    if len(columns) == 1 and re.search("[,; ]", header.strip()):
        raise DataError(
            f"{path} is not separated by tabs; its first line is {header[:80]!r}. Save it as "
            "tab-separated text."
        )
    repeated = {column for column in columns if columns.count(column) > 1}
    if repeated:
        raise DataError(f"{path} has columns of the same name: {', '.join(sorted(repeated))}")
    rows = []
    for number, line in numbered[1:]:
        cells = [cell.strip() for cell in line.split("\t")]
        while len(cells) > len(columns) and not cells[-1]:
            cells.pop()
        if len(cells) != len(columns):
            raise DataError(
                f"{path}, line {number}: {len(cells)} cells where the header has {len(columns)}"
            )
        rows.append(tuple(cells))
    return _Table(tuple(columns), tuple(rows), tuple(number for number, _ in numbered[1:]))


def _usable_rows(table: _Table, path: Path) -> pd.DataFrame:
    """Turn cells into numbers, leaving out the rows without onset or trial type."""
    index = {column: position for position, column in enumerate(table.columns)}
    usable: list[tuple[str, ...]] = []
    onsets, durations, trial_types = [], [], []
    for row, line in zip(table.rows, table.lines, strict=True):
        trial_type = row[index["trial_type"]] if "trial_type" in index else UNNAMED_TRIAL_TYPE
        onset = _number(row[index["onset"]], "onset", path, line)
        length = _number(row[index["duration"]], "duration", path, line)
        if length is not None and length < 0:
            raise DataError(f"{path}, line {line}: the duration is negative ({length:g} s)")
        if onset is None or trial_type.lower() in _MISSING:
            continue
        usable.append(row)
        onsets.append(onset)
        durations.append(0.0 if length is None else length)
        trial_types.append(trial_type)
    if len(usable) < len(table.rows):
        log.warning(
            "%s: %d of %d rows left out, their onset or trial_type is n/a",
            path,
            len(table.rows) - len(usable),
            len(table.rows),
        )
    columns: dict[str, list[float] | list[str]] = {
        "onset": onsets,
        "duration": durations,
        "trial_type": trial_types,
    }
    if "modulation" in index:
        modulation = [_number_or_none(row[index["modulation"]]) for row in usable]
        if None in modulation:
            log.warning("%s: the column modulation is ignored, it is not numeric", path)
        else:
            columns["modulation"] = [value for value in modulation if value is not None]
    import pandas as pd  # loaded with the first table: finding runs does not need it

    return pd.DataFrame(columns)


def _number(cell: str, column: str, path: Path, line: int) -> float | None:
    """Read a number of seconds from a cell; None when it is n/a."""
    if cell.lower() in _MISSING:
        return None
    value = _number_or_none(cell)
    if value is None:
        raise DataError(f"{path}, line {line}: the {column} is {cell[:40]!r}; a number (s) or n/a")
    return value


def _number_or_none(cell: str) -> float | None:
    try:
        value = float(cell) if "_" not in cell else math.nan  # Python reads "1_0" as 10
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _drop_beyond(
    frame: pd.DataFrame, duration: float, most_beyond: float, path: Path
) -> pd.DataFrame:
    """Leave out events after the run, unless they are too many or too late to be its own."""
    beyond = frame["onset"] >= duration
    if not beyond.any():
        return frame
    last = float(frame["onset"].max())
    if beyond.mean() <= most_beyond and last < 2 * duration:
        log.warning(
            "%s: %d of %d events left out, they begin after the run has ended (%g s)",
            path,
            int(beyond.sum()),
            len(frame),
            duration,
        )
        return frame[~beyond]
    hint = ""
    if last / 1000 < duration and (frame["onset"] % 1 == 0).all() and last > 10 * duration:
        hint = " Onsets look like milliseconds; seconds are expected."
    raise DataError(
        f"{path}: {int(beyond.sum())} of {len(frame)} events begin beyond the end of the run (the "
        f"last onset is {last:g} s, the run lasts {duration:g} s).{hint} Do the events belong to "
        "this run?"
    )


def _drop_long_past(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    past = frame["onset"] + frame["duration"] <= -LONGEST_RESPONSE
    if past.all():
        raise DataError(
            f"{path}: all events ended more than {LONGEST_RESPONSE:g} s before the first volume; "
            "onsets count from the first volume of the run"
        )
    if past.any():
        log.warning("%s: %d events long before the run left out", path, int(past.sum()))
    return frame[~past]
