"""Read the contrasts that the user asks for, in this project's form or as a BIDS Stats Model.

This project's form is short::

    {"faces": {"fear > happy": {"fear": 1, "happy": -1}}}

that is task → name of the contrast → weight of each trial type. Of a BIDS
Stats Model the run-level nodes are read: their ``Contrasts`` and
``DummyContrasts`` with ``Test`` t. Higher levels are averages over runs and
participants here, whatever the model says of them.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from fmrisynth.errors import DataError, NoInputError

__all__ = ["Contrast", "read_contrasts"]

log = logging.getLogger(__name__)

_LARGEST_FILE = 2**20  # bytes
_PREFIX = "trial_type."
_FORM = '{"task": {"name of the contrast": {"trial_type": weight}}} or a BIDS Stats Model'


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of the effects of one task's trial types.

    Attributes
    ----------
    name : str
        Name, unique within its task.
    task : str
        Task whose runs have the trial types, without ``task-``.
    weights : mapping
        Trial type → weight, at least one of them not zero.
    """

    name: str
    task: str
    weights: Mapping[str, float]


def read_contrasts(path: Path) -> tuple[Contrast, ...]:
    """Read the contrasts of a file.

    What of a BIDS Stats Model cannot be expressed (F tests, other levels than
    runs, conditions by pattern) is left out, and a warning names it.

    Parameters
    ----------
    path : Path
        JSON file, see the module.

    Returns
    -------
    tuple of Contrast
        In the order of the file, at least one. That the dataset has these
        tasks and trial types is not checked here; a BIDS Stats Model for
        several tasks gives each contrast once for every one of them.

    Raises
    ------
    NoInputError
        When there is no such file.
    DataError
        When it is not JSON, or not of one of the two forms, names a contrast
        twice, or has weights that are not finite numbers.
    """
    document = _load(path)
    if any(key in document for key in ("Nodes", "Steps", "BIDSModelVersion")):
        contrasts = tuple(_of_stats_model(document, path))
    else:
        contrasts = tuple(_of_own_form(document, path))
    if not contrasts:
        raise DataError(
            f"{path} holds no contrast that can be used; expected is {_FORM} with at least one "
            "run-level t contrast of trial types"
        )
    return _without_repeats(contrasts, path)


def _load(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise NoInputError(f"{path} does not exist or is not a file; --contrasts wants a JSON file")
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise DataError(f"{path} is larger than {_LARGEST_FILE >> 20} MiB: no contrasts file")
        document = json.loads(path.read_bytes().decode("utf-8-sig"), object_pairs_hook=_unique_keys)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not usable JSON ({error}); expected is {_FORM}") from error
    if not isinstance(document, dict):
        raise DataError(f"{path} holds {_said(document)}; expected is {_FORM}")
    return document


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    repeated = sorted({key for key in keys if keys.count(key) > 1})
    if repeated:
        raise ValueError(f"the name {repeated[0]!r} stands twice in one object")
    return dict(pairs)


def _of_own_form(document: Mapping[str, Any], path: Path) -> Iterator[Contrast]:
    for task, contrasts in document.items():
        where = f"{path}, task {task!r}"
        label = _name(task, where).removeprefix("task-")
        for name, weights in _object(contrasts, where, "contrasts by name").items():
            place = f"{where}, contrast {name!r}"
            given = _object(weights, place, "a weight for each trial type")
            yield Contrast(_name(name, place), label, _weights(given.items(), place))


def _of_stats_model(document: Mapping[str, Any], path: Path) -> Iterator[Contrast]:
    nodes = document.get("Nodes", document.get("Steps"))
    if not isinstance(nodes, list):
        raise DataError(f"{path}: Nodes is {_said(nodes)}; a BIDS Stats Model has a list of nodes")
    tasks = _tasks(document, path)
    for position, entry in enumerate(nodes, start=1):
        where = f"{path}, node {position}"
        node = _object(entry, where, "an object with Level, Model and Contrasts")
        level = str(node.get("Level", "")).lower()
        if level != "run":
            log.warning(
                "%s (level %r) is left out: contrasts of runs are averaged over runs and "
                "participants here",
                where,
                node.get("Level"),
            )
            continue
        # As in pybids, a contrast with weights replaces a dummy of its name.
        for name, weights in {**dict(_dummies(node, where)), **_explicit(node, where)}.items():
            for task in tasks:
                yield Contrast(name, task, weights)


def _tasks(document: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    """Tasks under Input; a model that holds for any task cannot be matched to one."""
    given = document.get("Input") or {}
    given = {str(k).lower(): v for k, v in _object(given, f"{path}, Input", "entities").items()}
    tasks = given.get("task")
    tasks = [tasks] if isinstance(tasks, str) else tasks
    if not isinstance(tasks, list) or not tasks:
        raise DataError(
            f'{path} names no task under Input; add "Input": {{"task": ["<label>"]}}, so that it '
            "is known which runs have its conditions"
        )
    labels = [_name(task, f"{path}, Input.task").removeprefix("task-") for task in tasks]
    return tuple(dict.fromkeys(labels))


def _explicit(node: Mapping[str, Any], where: str) -> dict[str, dict[str, float]]:
    """Contrasts of a node that have weights."""
    contrasts: dict[str, dict[str, float]] = {}
    for position, entry in enumerate(_list(node.get("Contrasts") or [], where, "Contrasts"), 1):
        contrast = _object(entry, f"{where}, contrast {position}", "Name, ConditionList, Weights")
        place = f"{where}, contrast {contrast.get('Name', position)!r}"
        name = _name(contrast.get("Name"), place)
        if not _is_t(contrast.get("Test"), place):
            continue
        conditions = _list(contrast.get("ConditionList"), place, "ConditionList")
        weights = _list(contrast.get("Weights"), place, "Weights")
        if len(weights) == 1 and isinstance(weights[0], list):
            weights = weights[0]
        if any(isinstance(weight, list) for weight in weights):
            log.warning("%s is left out: only one row of weights (a t contrast) is used", place)
            continue
        if len(weights) != len(conditions):
            raise DataError(
                f"{place}: {len(weights)} Weights for {len(conditions)} conditions in "
                "ConditionList; each condition needs one"
            )
        trial_types = [_trial_type(condition, place) for condition in conditions]
        if None in trial_types:
            continue
        if name in contrasts:
            raise DataError(f"{place}: the node has two contrasts of this name; rename one")
        contrasts[name] = _weights(zip(trial_types, weights, strict=True), place)
    return contrasts


def _dummies(node: Mapping[str, Any], where: str) -> Iterator[tuple[str, dict[str, float]]]:
    """Contrasts of a node that are one trial type each."""
    dummies = node.get("DummyContrasts")
    if not dummies:
        return
    place = f"{where}, DummyContrasts"
    dummies = _object(dummies, place, "Test and Contrasts")
    if not _is_t(dummies.get("Test"), place):
        return
    # "Contrasts" is today's name of the list, "Conditions" that of older models.
    conditions = dummies.get("Contrasts", dummies.get("Conditions"))
    if conditions is None:  # then every condition of the model is one, of which trial types count
        model = _object(node.get("Model") or {}, f"{where}, Model", "X")
        columns = _list(model.get("X", []), f"{where}, Model", "X")
        conditions = [x for x in columns if isinstance(x, str) and x.startswith(_PREFIX)]
    for condition in _list(conditions, place, "Contrasts"):
        trial_type = _trial_type(condition, place)
        if trial_type is not None:
            yield trial_type, {trial_type: 1.0}


def _is_t(test: object, place: str) -> bool:
    if test is None or (isinstance(test, str) and test.lower() == "t"):
        return True
    log.warning("%s is left out: its Test is %r, and only t contrasts are computed", place, test)
    return False


def _trial_type(condition: object, place: str) -> str | None:
    """``trial_type.x`` or ``x`` → ``x``; None for what is no single trial type."""
    if isinstance(condition, int | float) and not isinstance(condition, bool):
        log.warning("%s is left out: the intercept (%s) is no trial type", place, condition)
        return None
    name = _name(condition, place).removeprefix(_PREFIX)
    if not name or "*" in name:
        log.warning(
            "%s: the condition %r is left out: it is a pattern. Every trial type is evaluated "
            "without being asked for.",
            place,
            condition,
        )
        return None
    return name


def _weights(pairs: Iterable[tuple[Any, Any]], place: str) -> dict[str, float]:
    weights: dict[str, float] = {}
    for trial_type, value in pairs:
        label = _name(trial_type, place).removeprefix(_PREFIX)
        if label in weights:
            raise DataError(f"{place}: the condition {label!r} has two weights")
        weights[label] = _number(value, f"{place}, weight of {label!r}")
    if not any(weights.values()):
        what = "no weight" if not weights else "only weights of 0"
        raise DataError(f"{place}: {what}; at least one trial type must count")
    return weights


def _number(value: object, place: str) -> float:
    """Read a weight; fractions ("1/3") are allowed, as in a BIDS Stats Model."""
    number = math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
    elif isinstance(value, str):
        try:
            number = float(Fraction(value.replace(" ", "")))
        except (ValueError, ZeroDivisionError, OverflowError):
            number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{place} is {str(value)[:40]!r}; a finite number (or 1/3) is expected")
    return number


def _name(value: object, place: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{place}: {_said(value)} where a name is expected")
    if not value.isprintable():
        raise DataError(f"{place}: the name {value[:40]!r} has a line break or control character")
    return value.strip()


def _object(value: Any, place: str, expected: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{place} is {_said(value)}; expected is an object with {expected}")
    return value


def _list(value: Any, place: str, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise DataError(f"{place}: {what} is {_said(value)}; expected is a list")
    return value


def _said(value: object) -> str:
    if value is None:
        return "nothing"
    kinds = {list: "a list", dict: "an object", bool: "true or false", str: "a text"}
    return kinds.get(type(value), "a number") + f" ({str(value)[:40]})"


def _without_repeats(contrasts: Sequence[Contrast], path: Path) -> tuple[Contrast, ...]:
    """Merge equal contrasts (two nodes of a model may share one), refuse unequal namesakes."""
    unique: dict[tuple[str, str], Contrast] = {}
    for contrast in contrasts:
        known = unique.setdefault((contrast.task, contrast.name), contrast)
        if dict(known.weights) != dict(contrast.weights):
            raise DataError(
                f"{path}: the task {contrast.task!r} has two different contrasts named "
                f"{contrast.name!r}; give each its own name"
            )
    return tuple(unique.values())
