"""Validate the input with the BIDS validator, where it is installed.

Issues with the content of a single run (empty files, tables of events, image
headers) are ignored, since fmrisynth reads each run itself and skips the bad
ones, one by one. So are issues with folders that it does not read (anat, dwi,
fmap, …).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fmrisynth.bids.sidecars import read_json
from fmrisynth.errors import NotBIDSError
from fmrisynth.runtime.files import make_folder, write_text

__all__ = ["find_validator", "validation"]

VALIDATOR = "bids-validator-deno"
LIMIT = 1800.0  # s; a dataset of 14,000 runs took 103 s
SHOWN = 5
# Issues that fmrisynth reports itself (files without content, sidecars without a repetition time,
# a participants.tsv that disagrees), or that do not matter to it: raw images that lie elsewhere,
# ages written as ranges.
_HARMLESS = {
    "EMPTY_FILE",
    "PARTICIPANT_ID_MISMATCH",
    "SIDECAR_KEY_REQUIRED",
    "SIDECAR_WITHOUT_DATAFILE",
    "TSV_VALUE_INCORRECT_TYPE",
}

log = logging.getLogger(__name__)


def find_validator() -> Path | None:
    """Find the validator's program on the PATH, or beside this Python."""
    beside = str(Path(sys.executable).parent)
    program = shutil.which(VALIDATOR) or shutil.which(VALIDATOR, path=beside)
    return Path(program) if program else None


@contextlib.contextmanager
def validation(bids_dir: Path, memory: Path | None, *, skip: bool = False) -> Iterator[None]:
    """Validate a dataset while the body of the ``with`` runs, and raise errors at its end.

    Parameters
    ----------
    bids_dir : Path
        Root of the dataset. Only a raw dataset is validated: derivatives of other
        programs are seldom valid, and are read with more care.
    memory : Path or None
        A folder that remembers valid datasets, so that many calls on one dataset
        validate it once.
    skip : bool
        Do not validate.

    Raises
    ------
    NotBIDSError
        The validator found errors; the message lists the first ones.
    """
    root = bids_dir.resolve()
    process, stamp = (None, None) if skip else _start(root, memory)
    if process is None:
        yield
        return
    try:
        yield
        report, said = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        log.warning("the BIDS validator was stopped after %.0f s; going on without it", LIMIT)
        return
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    try:
        issues = json.loads(report)["issues"]["issues"]
    except (ValueError, KeyError, TypeError):
        log.warning("the BIDS validator failed; going on without it: %s", said.strip()[-500:])
        return
    _refuse([issue for issue in issues if _matters(issue)], root)
    log.info("the BIDS validator found no error in what is read of %s", root)
    if stamp is not None:
        with contextlib.suppress(OSError):  # what cannot be kept is found again
            make_folder(stamp.parent)
            write_text(stamp, f"{root} had no errors.\n")


def _start(root: Path, memory: Path | None) -> tuple[subprocess.Popen[str] | None, Path | None]:
    """Start the validator, unless a reason speaks against it, which is logged."""
    kind = read_json(root / "dataset_description.json").get("DatasetType", "raw")
    if kind != "raw":
        log.info("not validated: %s is no raw dataset but a %r one", root, kind)
        return None, None
    stamp = memory and memory / f"valid-{_fingerprint(root)}"
    if stamp is not None and stamp.exists():
        log.info("not validated again: %s says that there were no errors", stamp)
        return None, None
    program = find_validator()
    if program is None:
        log.info("not validated: %s is not installed (pip install %s)", VALIDATOR, VALIDATOR)
        return None, None
    words = [str(program), str(root), "--format", "json", "--ignoreWarnings"]
    try:
        process = subprocess.Popen(
            [*words, "--ignoreNiftiHeaders"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
    except OSError as error:
        log.warning("not validated: %s cannot be started: %s", program, error)
        return None, None
    return process, stamp


def _matters(issue: Mapping[str, Any]) -> bool:
    """Say whether an issue is an error in files that fmrisynth reads, beyond a single run."""
    if issue.get("severity") != "error" or issue.get("code") in _HARMLESS:
        return False
    place = Path(str(issue.get("location") or "/"))
    if place.name.endswith("_events.tsv"):
        return False
    parts = place.parts[1:]
    if len(parts) > 1 and not parts[0].startswith("sub-"):
        return False  # code, phenotype, stimuli, …
    folders = [part for part in parts[1:-1] if not part.startswith("ses-")]
    return folders[:1] in ([], ["func"])


def _refuse(errors: list[Mapping[str, Any]], root: Path) -> None:
    if not errors:
        return
    lines = []
    for issue in errors[:SHOWN]:
        code = "/".join(str(issue[key]) for key in ("code", "subCode") if issue.get(key))
        detail = str(issue.get("issueMessage") or "").split("\n")[0]
        lines.append(f"\n  {code}: {issue.get('location') or root}{detail and f' ({detail})'}")
    more = f"\n  … and {len(errors) - SHOWN} more" if len(errors) > SHOWN else ""
    raise NotBIDSError(
        f"the BIDS validator found {len(errors)} errors in {root}:{''.join(lines)}{more}\n"
        f"Repair them ({VALIDATOR} {root} shows all), or pass --skip-bids-validation to go on."
    )


def _fingerprint(root: Path) -> str:
    """Digest names and times of the dataset's own files and func folders."""
    digest = hashlib.sha256(str(root).encode())
    for place in (root, *sorted(root.glob("sub-*/func")), *sorted(root.glob("sub-*/ses-*/func"))):
        digest.update(f"{place}\t{place.stat().st_mtime_ns}\n".encode())
    for place in sorted(p for p in root.iterdir() if p.is_file()):
        digest.update(f"{place}\t{place.stat().st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]
