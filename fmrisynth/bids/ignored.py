"""Honour the .bidsignore file of a dataset."""

from __future__ import annotations

from pathlib import Path

from pathspec import GitIgnoreSpec

__all__ = ["IgnoredFiles"]


class IgnoredFiles:
    """The files that a dataset's .bidsignore leaves out, in the syntax of .gitignore.

    Parameters
    ----------
    root : Path
        Root of the dataset; without a .bidsignore nothing is left out.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            lines = (root / ".bidsignore").read_text(encoding="utf-8-sig", errors="replace")
        except OSError:
            lines = ""
        self._patterns = GitIgnoreSpec.from_lines(lines.splitlines())

    def __contains__(self, path: Path) -> bool:
        """Say whether a file below the root is left out."""
        return self._patterns.match_file(path.relative_to(self.root).as_posix())
