"""Define the block protocols of the seven tasks, and draw events from them.

Order and durations are those of the Human Connectome Project's task battery (Barch et al.,
2013, NeuroImage 80, 169-189, and the protocol it describes). A run of another length than the
original holds the same blocks, stretched or shortened together; a block then has fewer or more
trials of about the original length. A run much longer than the protocol repeats it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pandas as pd

__all__ = ["PROTOCOLS", "Block", "Protocol", "conditions_of", "draw_events"]

REST = "rest"


@dataclass(frozen=True)
class Block:
    """One block: an instruction without event, then trials of (mostly) one type.

    Attributes
    ----------
    trial_type : str
        Type of the trials; ``"rest"`` for fixation, which has no events.
    duration : float
        Seconds of trials.
    lead : float
        Seconds of instruction before them.
    trial : float
        Seconds from one trial to the next; 0 when the block is one event.
    active : float
        Share of that time that the stimulus (or movement) lasts.
    """

    trial_type: str
    duration: float
    lead: float = 0.0
    trial: float = 0.0
    active: float = 1.0


@dataclass(frozen=True)
class Protocol:
    """The blocks of one run in a typical order.

    Attributes
    ----------
    blocks : tuple of Block
        In a typical order; task blocks change places among themselves between runs.
    start : float
        Seconds before the first block.
    minority : float
        Share of the trials of a block that are of another type than the block's.
    description : str
        What the participant did, for the events sidecar.
    """

    blocks: tuple[Block, ...]
    start: float
    description: str
    minority: float = 0.0

    @property
    def duration(self) -> float:
        """Length of the run in s."""
        return self.start + sum(block.lead + block.duration for block in self.blocks)

    @property
    def trial_types(self) -> tuple[str, ...]:
        """Trial types in order of first appearance."""
        return tuple(dict.fromkeys(b.trial_type for b in self.blocks if b.trial_type != REST))


def _rest(duration: float) -> Block:
    return Block(REST, duration)


def _emotion() -> Protocol:
    faces = Block("fear", 18.0, lead=3.0, trial=3.0, active=2 / 3)
    shapes = Block("neut", 18.0, lead=3.0, trial=3.0, active=2 / 3)
    return Protocol((shapes, faces) * 3 + (_rest(8.0),), 8.0, "Matching of faces or shapes")


def _gambling() -> Protocol:
    win = Block("win", 28.0, trial=3.5, active=5 / 7)
    loss = Block("loss", 28.0, trial=3.5, active=5 / 7)
    rest = _rest(15.0)
    return Protocol(
        (win, rest, loss, rest, loss, rest, win, rest), 8.0, "Card guessing for money", 0.25
    )


def _language() -> Protocol:
    stories = [Block("story", seconds) for seconds in (27.0, 30.0, 25.0, 32.0)]
    problems = [Block("math", seconds, trial=13.0, active=0.95) for seconds in (26.0,) * 4]
    pairs = [block for pair in zip(stories, problems, strict=True) for block in pair]
    return Protocol(tuple(pairs), 6.0, "Listening to stories or sums with questions")


def _motor() -> Protocol:
    lf, rf, lh, rh, t = (Block(name, 12.0, lead=3.0) for name in ("lf", "rf", "lh", "rh", "t"))
    rest = _rest(15.0)
    return Protocol(
        (rh, lf, t, rf, lh, rest, t, lf, rh, rest, lh, rf, rest),
        8.0,
        "Movements of feet, hands or tongue",
    )


def _relational() -> Protocol:
    relation = Block("relation", 16.0, lead=2.0, trial=4.0, active=0.875)
    match = Block("match", 16.0, lead=2.0, trial=3.2, active=0.875)
    rest = _rest(16.0)
    return Protocol(
        (relation, match, rest) * 3, 8.0, "Comparison of dimensions or match of one dimension"
    )


def _social() -> Protocol:
    mental, random = Block("mental", 20.0, lead=0.0), Block("rnd", 20.0, lead=0.0)
    rest = _rest(18.0)  # 3 s of response and 15 s of fixation
    return Protocol(
        (mental, rest, random, rest, random, rest, mental, rest, random, rest),
        8.0,
        "Films of shapes that interact or move at random",
    )


def _working_memory() -> Protocol:
    two = Block("2bk", 25.0, lead=2.5, trial=2.5, active=0.8)
    zero = Block("0bk", 25.0, lead=2.5, trial=2.5, active=0.8)
    rest = _rest(15.0)
    return Protocol(
        (two, zero, rest, zero, two, rest, two, zero, rest, two, zero, rest),
        8.0,
        "N-back with faces, bodies, places and tools",
    )


PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
    {
        "EMOTION": _emotion(),
        "GAMBLING": _gambling(),
        "LANGUAGE": _language(),
        "MOTOR": _motor(),
        "RELATIONAL": _relational(),
        "SOCIAL": _social(),
        "WM": _working_memory(),
    }
)


def conditions_of(tasks: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return the (task, trial type) pairs of `tasks`, in order."""
    return [(task, name) for task in tasks for name in PROTOCOLS[task].trial_types]


def draw_events(task: str, duration: float, rng: np.random.Generator) -> pd.DataFrame:
    """Draw the events of one run.

    Parameters
    ----------
    task : str
        One of :data:`PROTOCOLS`.
    duration : float
        Length of the run in s.
    rng : numpy.random.Generator
        Draws the order of the task blocks, the start, and jitters of the pauses.

    Returns
    -------
    pandas.DataFrame
        Columns ``onset``, ``duration`` (s, to the millisecond) and ``trial_type``, sorted; every
        event ends within the run, and every trial type occurs.
    """
    protocol = PROTOCOLS[task]
    repeats = max(1, round(duration / protocol.duration))
    blocks = [block for _ in range(repeats) for block in _reorder(protocol.blocks, rng)]
    # The start keeps its length, as a scanner needs it; the rest shares what is left.
    start = min(protocol.start, 0.1 * duration) * rng.uniform(0.6, 1.2)
    pauses = np.array([_pause(block) for block in blocks]) * rng.uniform(0.8, 1.2, len(blocks))
    tasks = np.array([0.0 if b.trial_type == REST else b.duration for b in blocks])
    scale = (duration - start) / (pauses.sum() + tasks.sum())
    rows: list[tuple[float, float, str]] = []
    clock = start
    for block, pause, length in zip(blocks, pauses * scale, tasks * scale, strict=True):
        clock += pause
        if block.trial_type != REST:
            rows += _trials(block, clock, length, protocol, rng)
        clock += length
    events = pd.DataFrame(rows, columns=["onset", "duration", "trial_type"])
    # Truncation to ms keeps the last event inside the run.
    events[["onset", "duration"]] = np.floor(events[["onset", "duration"]].to_numpy() * 1e3) / 1e3
    return events.sort_values("onset", ignore_index=True)


def _pause(block: Block) -> float:
    return block.duration if block.trial_type == REST else block.lead


def _reorder(blocks: tuple[Block, ...], rng: np.random.Generator) -> list[Block]:
    """Shuffle the task blocks among their places; fixation stays where it is."""
    shuffled = iter(rng.permutation([i for i, b in enumerate(blocks) if b.trial_type != REST]))
    return [b if b.trial_type == REST else blocks[next(shuffled)] for b in blocks]


def _trials(
    block: Block, onset: float, length: float, protocol: Protocol, rng: np.random.Generator
) -> list[tuple[float, float, str]]:
    """Fill a block of `length` s with trials of about their original duration."""
    n_trials = max(1, round(length / block.trial)) if block.trial else 1
    step = length / n_trials
    types = np.full(n_trials, block.trial_type, dtype=object)
    if protocol.minority:
        others = [name for name in protocol.trial_types if name != block.trial_type]
        swapped = rng.permutation(n_trials)[: int(protocol.minority * n_trials)]
        types[swapped] = rng.choice(others, len(swapped))
    return [(onset + i * step, step * block.active, str(types[i])) for i in range(n_trials)]
