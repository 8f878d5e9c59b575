"""Store an evaluation on disk, so that its report can be made again without the runs.

Everything lies in one file, ``evaluation.npz``: a tree of plain values as JSON,
and the arrays that the tree refers to by number. Nothing in it is executed
when it is read (no pickle). Dataclasses are stored by name and field; which
ones may occur is read off the annotations of `Evaluation`, so that a new field
needs no change here.
"""

from __future__ import annotations

import dataclasses
import json
import math
import typing
import zipfile
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from fmrisynth.errors import DataError
from fmrisynth.evaluation.result import Evaluation
from fmrisynth.runtime.files import write_arrays

__all__ = ["FILE_NAME", "load_evaluation", "save_evaluation"]

FILE_NAME = "evaluation.npz"
"""Name of the file in the directory given."""

_FORMAT = 1
"""Raised when the meaning of the file changes; fields that come or go are noticed without it."""

_LEFT_OUT: Mapping[str, Any] = {"records": {}}
"""Fields that no report reads, and what a loaded evaluation has there: runs' records are files
in the work directory, which is gone by then."""

_LARGE = 2**15
"""Arrays of so many numbers are maps, of which single precision is enough."""

_AGAIN = "run the group level again (without --reports-only)"


def save_evaluation(evaluation: Evaluation, directory: Path) -> None:
    """Write an evaluation.

    Parameters
    ----------
    evaluation : Evaluation
        What `fmrisynth.evaluation.evaluate.evaluate` gave. Its ``records`` are left out.
    directory : Path
        Receives ``evaluation.npz``, which appears only when complete; created when missing.

    Raises
    ------
    TypeError
        When a field holds something else than numbers, text, arrays, images,
        containers of these and the dataclasses that its annotations name.
    OutputError, InputOutputError
        When it cannot be written.
    """
    arrays: list[np.ndarray] = []
    writer = _Writer(_dataclasses_of(Evaluation), arrays)
    slim = dataclasses.replace(evaluation, **_LEFT_OUT)
    tree = json.dumps({"format": _FORMAT, "evaluation": writer.tree(slim, "evaluation")})
    stored = {f"array{number}": array for number, array in enumerate(arrays)}
    stored["tree"] = np.frombuffer(tree.encode("utf-8"), dtype=np.uint8)
    write_arrays(directory / FILE_NAME, stored)


def load_evaluation(directory: Path) -> Evaluation:
    """Read what `save_evaluation` has written.

    Parameters
    ----------
    directory : Path
        The directory it was written to.

    Returns
    -------
    Evaluation
        Equal to the one saved, but for its empty ``records``, and large arrays
        in single precision.

    Raises
    ------
    DataError
        When there is none, or it is damaged, or was written by a version of
        fmrisynth whose evaluations hold something else.
    """
    path = directory / FILE_NAME
    if not path.is_file():
        raise DataError(f"{path} does not exist: no evaluation was saved there; {_AGAIN}")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"the part {damaged} does not have its checksum")
        with np.load(path, allow_pickle=False) as stored:
            document = json.loads(bytes(stored["tree"]).decode("utf-8"))
            found = document["format"]
            if found != _FORMAT:
                raise DataError(
                    f"{path} has the format {found!r}, this version of fmrisynth reads {_FORMAT}; "
                    f"{_AGAIN}"
                )
            arrays = [stored[f"array{n}"] for n in range(len(stored.files) - 1)]
        evaluation = _Reader(_dataclasses_of(Evaluation), arrays).value(document["evaluation"])
    except _OtherVersion as error:
        raise DataError(
            f"{path} was written by another version of fmrisynth ({error}); {_AGAIN}"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, IndexError, zipfile.BadZipFile,
            EOFError, RecursionError) as error:  # fmt: skip
        raise DataError(f"{path} is damaged ({error}); {_AGAIN}") from error
    if not isinstance(evaluation, Evaluation):
        raise DataError(f"{path} holds no evaluation; {_AGAIN}")
    return evaluation


class _OtherVersion(Exception):
    """The file's dataclasses are not the ones there are."""


class _Writer:
    """Turns values into a tree that JSON can hold, and lists the arrays."""

    def __init__(self, classes: Mapping[str, type[Any]], arrays: list[np.ndarray]) -> None:
        self.classes, self.arrays = classes, arrays

    def tree(self, value: Any, place: str) -> Any:
        """Give a value's tree: itself, or ``{kind: content}``."""
        match value:
            case None | str() | bool() | int():
                return value
            case float():
                # NaN and the infinities are no JSON.
                return float(value) if math.isfinite(value) else {"float": str(float(value))}
            case np.generic():
                return self.tree(value.item(), place)
            case Path():
                return {"path": str(value)}
            case np.ndarray():
                return {"array": self._number(value, place)}
            case nib.Nifti1Image():
                data = np.asarray(value.dataobj)
                return {"image": [self._number(data, place), self._number(value.affine, place)]}
            case Mapping():
                items = value.items()
                return {"mapping": [[self.tree(k, place), self.tree(v, f"{place}[{k!r}]")]
                                    for k, v in items]}  # fmt: skip
            case list() | tuple():
                kind = "list" if isinstance(value, list) else "tuple"
                return {kind: [self.tree(v, f"{place}[{n}]") for n, v in enumerate(value)]}
            case Set():
                return {"set": [self.tree(v, place) for v in sorted(value)]}
        if self.classes.get(type(value).__name__) is not type(value):
            raise TypeError(f"{place} is a {type(value).__name__}, which cannot be saved")
        names = [field.name for field in dataclasses.fields(self.classes[type(value).__name__])]
        fields = {name: self.tree(getattr(value, name), f"{place}.{name}") for name in names}
        return {"object": [type(value).__name__, fields]}

    def _number(self, array: np.ndarray, place: str) -> int:
        if array.dtype.hasobject:
            raise TypeError(f"{place} is an array of objects, which cannot be saved")
        if array.dtype == np.float64 and array.size >= _LARGE:
            array = array.astype(np.float32)
        self.arrays.append(array)
        return len(self.arrays) - 1


class _Reader:
    """Turns a tree back into values."""

    def __init__(self, classes: Mapping[str, type[Any]], arrays: list[np.ndarray]) -> None:
        self.classes, self.arrays = classes, arrays

    def value(self, tree: Any) -> Any:
        """Give the value of a tree."""
        if not isinstance(tree, dict):
            return tree
        ((kind, content),) = tree.items()
        match kind:
            case "float":
                return float(content)
            case "path":
                return Path(content)
            case "array":
                return self.arrays[content]
            case "image":
                return nib.Nifti1Image(*(self.arrays[number] for number in content))
            case "mapping":
                return {self.value(k): self.value(v) for k, v in content}
            case "list":
                return [self.value(v) for v in content]
            case "tuple":
                return tuple(self.value(v) for v in content)
            case "set":
                return frozenset(self.value(v) for v in content)
            case "object":
                return self._object(*content)
        raise ValueError(f"unknown kind of value {kind!r}")

    def _object(self, name: str, fields: Mapping[str, Any]) -> Any:
        cls = self.classes.get(name)
        if cls is None:
            raise _OtherVersion(f"it holds a {name}")
        known = {field.name for field in dataclasses.fields(cls)}
        if known != set(fields):
            differing = ", ".join(sorted(known ^ set(fields)))
            raise _OtherVersion(f"{name} differs in {differing}")
        return cls(**{key: self.value(tree) for key, tree in fields.items()})


def _dataclasses_of(root: type) -> dict[str, type[Any]]:
    """Find all dataclasses that a dataclass's annotations lead to, by name."""
    found: dict[str, type[Any]] = {}
    waiting: list[Any] = [root]
    while waiting:
        hint = waiting.pop()
        waiting.extend(typing.get_args(hint))
        if isinstance(hint, type) and dataclasses.is_dataclass(hint) and hint.__name__ not in found:
            found[hint.__name__] = hint
            hints = typing.get_type_hints(hint)
            waiting.extend(
                hints[field.name]
                for field in dataclasses.fields(hint)
                if not (hint is root and field.name in _LEFT_OUT)
            )
    return found
