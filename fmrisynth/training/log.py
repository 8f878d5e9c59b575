"""Log the losses of a training as CSV and for TensorBoard, and draw them."""

from __future__ import annotations

import csv
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar
from torch import Tensor

from fmrisynth.runtime.files import atomic_path, make_folder, writing

__all__ = ["CURVES_NAME", "LOG_NAME", "TrainingLog", "draw_curves"]

LOG_NAME, CURVES_NAME = "log.csv", "curves.png"


@dataclass
class TrainingLog:
    """Average the losses over a few steps, and append them to a CSV file and to TensorBoard's.

    Attributes
    ----------
    path : pathlib.Path
        The CSV file; TensorBoard's files are in the folder ``tensorboard`` beside it.
    pending : list of dict
        Losses of the steps since the last row.
    """

    path: Path
    pending: list[dict[str, float]] = field(default_factory=list)
    _events: EventsWriter | None = None

    def open(self, step: int) -> None:
        """Continue the log after `step`; later rows of an interrupted training are dropped."""
        if self.path.is_file():
            with open(self.path, newline="", encoding="utf-8") as stream:
                rows = list(csv.reader(stream))
            # the last row of a process that was killed may be torn
            valid = rows[:1] + [r for r in rows[1:] if len(r) == len(rows[0]) and int(r[0]) <= step]
            with atomic_path(self.path) as temporary, open(temporary, "w", newline="") as stream:
                csv.writer(stream).writerows(valid)
        # tensorboardX's own SummaryWriter writes in a thread, where an error such as a full disk
        # ends in a traceback and the training goes on without it
        folder = make_folder(self.path.with_name("tensorboard"))
        with writing(folder):
            self._events = EventsWriter(str(folder / f"from-{step}"))
        restart = SessionLog(status=SessionLog.START)
        self._write_event(Event(step=step + 1, session_log=restart))  # drops what came after

    def add(self, losses: Mapping[str, float | Tensor]) -> dict[str, float]:
        """Add the losses of one step to the pending ones; return them as numbers."""
        self.pending.append({k: float(v) for k, v in losses.items()})
        return self.pending[-1]

    def write(self, step: int, elapsed: float) -> None:
        """Write the mean of the pending losses as the row of `step`; `elapsed` in s."""
        if not self.pending:
            return
        means = {
            name: float(np.mean([row[name] for row in self.pending if name in row]))
            for name in self.pending[-1]
        }
        new = not self.path.is_file() or self.path.stat().st_size == 0
        with open(self.path, "a", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            if new:
                writer.writerow(["step", "seconds", *means])
            writer.writerow([step, f"{elapsed:.1f}", *(f"{v:.6g}" for v in means.values())])
        for name, value in means.items():
            self._write_event(Event(step=step, summary=scalar(name, value)))
        self.pending.clear()

    def close(self) -> None:
        """Close TensorBoard's file."""
        if self._events is not None:
            self._events.close()

    def _write_event(self, event: Event) -> None:
        """Append to TensorBoard's file, at once: a row of losses comes every few seconds."""
        if self._events is None:
            return
        event.wall_time = time.time()
        with writing(self.path.with_name("tensorboard")):
            self._events.write_event(event)
            self._events.flush()


def draw_curves(log: Path, target: Path, title: str) -> None:
    """Draw each column of a training log against the step, as a PNG."""
    from matplotlib.figure import Figure  # slow to import, wanted once

    with open(log, newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    if not rows:
        return
    names = [name for name in rows[0] if name not in ("step", "seconds")]
    steps = [int(row["step"]) for row in rows]
    figure = Figure(figsize=(4 * len(names), 3), layout="constrained")
    for axis, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        axis.plot(steps, [float(row[name] or "nan") for row in rows])
        axis.set(xlabel="step", title=name)
    figure.suptitle(title)
    with atomic_path(target) as temporary:
        figure.savefig(temporary, format="png", dpi=100, metadata={"Software": None})
