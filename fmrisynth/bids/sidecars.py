"""Find the JSON and TSV files that apply to an image by the BIDS inheritance principle."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fmrisynth.bids.names import comparable, current_name, func_folder, parse_name
from fmrisynth.errors import DataError

__all__ = ["Sidecars", "read_json"]


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    DataError
        When the file is not UTF-8, not JSON or not an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} holds a JSON {type(content).__name__}; an object is expected")
    return content


_Sidecar = tuple[dict[str, str], Path]  # the entities in a file's name, and the file


class Sidecars:
    """Looks up sidecars in one dataset; every folder is listed once.

    A file applies to an image when it lies in the image's folder or above, has
    the same suffix, and its entities are all among the image's, where numbers
    may have leading zeros. Nearer files win over farther ones, more specific ones
    over less specific ones.

    Parameters
    ----------
    root : Path
        Root of the dataset, where the search upwards ends.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._listings: dict[Path, list[str]] = {}
        self._in_folders: dict[tuple[Path, str], list[_Sidecar]] = {}
        self._for_leaves: dict[tuple[str, ...], list[_Sidecar]] = {}
        self._shared: dict[Path, dict[str, Any]] = {}

    def folder_of(self, entities: Mapping[str, str]) -> Path:
        """Return the folder of the functional files of a participant (and session)."""
        return self.root.joinpath(*func_folder(entities))

    def metadata(self, entities: Mapping[str, str], suffix: str) -> dict[str, Any]:
        """Merge the JSON sidecars of an image.

        Raises
        ------
        DataError
            When one of them is not a JSON object.
        """
        merged: dict[str, Any] = {}
        for path in self._matches(entities, f"_{suffix}.json"):
            merged.update(self._read(path))
        return merged

    def nearest(
        self, entities: Mapping[str, str], ending: str, required: Mapping[str, str] | None = None
    ) -> Path | None:
        """Find the nearest applicable file, e.g. with `ending` ``"_events.tsv"``.

        Parameters
        ----------
        entities : mapping of str to str
            Entities of the image.
        ending : str
            Suffix and extension, with the underscore before them.
        required : mapping of str to str, optional
            Entities that the file's own name must have.
        """
        matches = self._matches(entities, ending, required)
        return matches[-1] if matches else None

    def _matches(
        self, entities: Mapping[str, str], ending: str, required: Mapping[str, str] | None = None
    ) -> list[Path]:
        """List applicable files from the root down, the least specific first."""
        leaf = func_folder(entities)
        key = (*leaf, ending)
        if key not in self._for_leaves:
            folders = [self.root.joinpath(*leaf[:depth]) for depth in range(len(leaf) + 1)]
            self._for_leaves[key] = [
                sidecar for folder in folders for sidecar in self._in_folder(folder, ending)
            ]
        needed, wanted = comparable(required or {}).items(), comparable(entities).items()
        return [
            path
            for own, path in self._for_leaves[key]
            if own.items() <= wanted and needed <= own.items()
        ]

    def _in_folder(self, folder: Path, ending: str) -> list[_Sidecar]:
        key = (folder, ending)
        if key not in self._in_folders:
            sidecars: list[_Sidecar] = []
            for name in self._names(folder):
                current = current_name(name)
                # "bold.json" at the root applies to everything, without an underscore.
                if current.endswith(ending) or current == ending[1:]:
                    try:
                        own = comparable(parse_name(current).entities)
                    except ValueError:
                        continue
                    sidecars.append((own, folder / name))
            self._in_folders[key] = sorted(sidecars, key=lambda item: (len(item[0]), item[1].name))
        return self._in_folders[key]

    def _names(self, folder: Path) -> list[str]:
        if folder not in self._listings:
            try:
                self._listings[folder] = os.listdir(folder)
            except OSError:
                self._listings[folder] = []
        return self._listings[folder]

    def _read(self, path: Path) -> dict[str, Any]:
        if path.parent.name == "func":  # applies to one image, mostly: not worth keeping
            return read_json(path)
        if path not in self._shared:
            self._shared[path] = read_json(path)
        return self._shared[path]
