"""Damage to a dataset of two participants, with what is to come of each.

Each case damages the second participant's run or a file of the dataset.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from support.bids_tree import SPACE, write_nifti

FUNC = Path("sub-02", "func")
EVENTS = FUNC / "sub-02_task-motor_events.tsv"
PREPROCESSED = Path("derivatives", "fmriprep") / FUNC
STEM = f"sub-02_task-motor_space-{SPACE}_res-2_desc-"
BOLD = PREPROCESSED / f"{STEM}preproc_bold.nii.gz"
SIDECAR = PREPROCESSED / f"{STEM}preproc_bold.json"
MASK = PREPROCESSED / f"{STEM}brain_mask.nii.gz"
HEADER = "onset\tduration\ttrial_type\n"
GOOD = HEADER + "2\t6\thand\n12\t6\tfoot\n"
Damage = Callable[[Path], object]


@dataclass(frozen=True)
class Case:
    """What is done to the dataset, and what comes of it.

    Attributes
    ----------
    damage : callable
        Given the root of the dataset.
    message : str
        Pattern in what is printed.
    code : int
        Exit code.
    images : int
        Synthetic runs written, of two.
    """

    damage: Damage
    message: str
    code: int = 65
    images: int = 1


def odd(damage: Damage, message: str = "participant level done") -> Case:
    """Input that is odd and used all the same."""
    return Case(damage, message, code=0, images=2)


def hopeless(damage: Damage, message: str, code: int = 65) -> Case:
    """Input that leaves nothing to do."""
    return Case(damage, message, code, images=0)


# What is done to files


def put(path: Path, content: str | bytes) -> Damage:
    """Write a file."""

    def damage(root: Path) -> None:
        (root / path).write_bytes(content if isinstance(content, bytes) else content.encode())

    return damage


def cut(path: Path, share: float) -> Damage:
    """Keep the beginning of a file."""

    def damage(root: Path) -> None:
        content = (root / path).read_bytes()
        (root / path).write_bytes(content[: int(len(content) * share)])

    return damage


def flip(path: Path, share: float) -> Damage:
    """Flip the bits of one byte."""

    def damage(root: Path) -> None:
        content = bytearray((root / path).read_bytes())
        content[int((len(content) - 1) * share)] ^= 0xFF
        (root / path).write_bytes(content)

    return damage


def link(path: Path, target: str) -> Damage:
    """Replace a file by a link, as git-annex has them."""

    def damage(root: Path) -> None:
        (root / path).unlink()
        (root / path).symlink_to(target)

    return damage


def header(offset: int, content: bytes, path: Path = BOLD) -> Damage:
    """Overwrite bytes of the NIfTI header."""

    def damage(root: Path) -> None:
        raw = bytearray(gzip.decompress((root / path).read_bytes()))
        raw[offset : offset + len(content)] = content
        (root / path).write_bytes(gzip.compress(bytes(raw), 1))

    return damage


def voxels(change: Callable[[np.ndarray], np.ndarray | None], path: Path = BOLD) -> Damage:
    """Change an image's data in place, or put other data in its place."""

    def damage(root: Path) -> None:
        image = nib.load(root / path)
        data = image.get_fdata(dtype="f4").copy()
        changed = change(data)
        t_r = 2.0 if path == BOLD else None
        write_nifti(root / path, data if changed is None else changed, image.affine, t_r=t_r)

    return damage


def both(affine: np.ndarray) -> Damage:
    """Give image and mask another affine."""

    def damage(root: Path) -> None:
        for path, t_r in ((BOLD, 2.0), (MASK, None)):
            data = nib.load(root / path).get_fdata(dtype="f4")
            write_nifti(root / path, data, affine, t_r=t_r)

    return damage


def sidecar(**entries: object) -> Damage:
    """Write the image's JSON."""
    return put(SIDECAR, json.dumps(entries))


def events(content: str | bytes) -> Damage:
    """Write the events."""
    return put(EVENTS, content)


def row(text: str) -> Damage:
    """Add an event."""
    return events(f"{GOOD}{text}\n")


def renamed(path: Path, old: str, new: str) -> Damage:
    """Give a file another name."""

    def damage(root: Path) -> None:
        target = root / str(path).replace(old, new)
        target.parent.mkdir(parents=True, exist_ok=True)
        (root / path).rename(target)

    return damage


def instead(path: Path, make: Callable[[Path], object]) -> Damage:
    """Put something that is no file in a file's place."""

    def damage(root: Path) -> None:
        (root / path).unlink()
        make(root / path)

    return damage


def after(*damages: Damage) -> Damage:
    """Do several things."""

    def damage(root: Path) -> None:
        for one in damages:
            one(root)

    return damage


def other_space(root: Path) -> None:
    """The damaged participant exists in another space alone."""
    for path in (BOLD, SIDECAR, MASK):
        renamed(path, SPACE, "T1w")(root)


def uncompressed(root: Path) -> None:
    """The same image as .nii."""
    content = gzip.decompress((root / BOLD).read_bytes())
    (root / BOLD).with_suffix("").write_bytes(content)
    (root / BOLD).unlink()


def scaled_integers(root: Path) -> None:
    """The same image as int16 with scl_slope and scl_inter."""
    image = nib.load(root / BOLD)
    data = image.get_fdata(dtype="f4")
    stored = nib.Nifti1Image(np.round((data - 600) * 20).astype("i2"), image.affine)
    stored.header.set_slope_inter(0.05, 600)
    stored.header.set_xyzt_units("mm", "sec")
    stored.header["pixdim"][4] = 2
    nib.save(stored, root / BOLD)


def without_t_r(root: Path) -> None:
    """Neither the sidecars nor the header have a TR."""
    for path in root.rglob("*_bold.json"):
        path.write_text("{}")
    header(92, b"\0\0\0\0")(root)


def nifti2(root: Path) -> None:
    image = nib.load(root / BOLD)
    nib.save(nib.Nifti2Image.from_image(image), root / BOLD)


def complex_voxels(root: Path) -> None:
    image = nib.load(root / BOLD)
    write_nifti(root / BOLD, image.get_fdata(dtype="f4").astype("c8"), image.affine, t_r=2.0)


def moved(millimetres: float, shape: tuple[int, int, int]) -> Damage:
    """Put the mask on a grid of 2 mm that lies elsewhere."""

    def damage(root: Path) -> None:
        affine = np.diag([2.0, 2.0, 2.0, 1.0])
        affine[:3, 3] = np.array([-15, -19, -13]) + millimetres
        write_nifti(root / MASK, np.ones(shape, "u1"), affine)

    return damage


def nan_in(share: float, value: float = np.nan) -> Callable[[np.ndarray], None]:
    """Make a share of the voxels NaN at one time."""

    def change(data: np.ndarray) -> None:
        brain = np.argwhere(data[..., 0] != 0)
        for x, y, z in brain[: max(1, round(share * len(brain)))]:
            data[x, y, z, 3] = value

    return change


def constant(data: np.ndarray) -> None:
    data[:] = data[..., :1]


def few_constant(data: np.ndarray) -> None:
    data[4, 4, 4] = 900


OBLIQUE = np.array([[3.9, 0.5, 0.1, -14], [-0.5, 3.9, 0.3, -18], [0, -0.3, 3.9, -12], [0, 0, 0, 1]])
FLIPPED = np.diag([-4.0, 4.0, 4.0, 1.0])
FLIPPED[:3, 3] = (14, -18, -12)
MISSING = r"datalad get .*git annex get"

CASES = {
    # compression and content
    "gzip truncated in the voxels": Case(cut(BOLD, 0.6), "damaged|truncated"),
    "gzip truncated in the header": Case(cut(BOLD, 0.001), "no readable NIfTI header"),
    "gzip without its last byte": Case(cut(BOLD, 0.99999), "damaged"),
    "gzip with a flipped byte in the middle": Case(flip(BOLD, 0.5), "damaged"),
    "gzip with a flipped byte in its checksum": Case(flip(BOLD, 0.99995), "damaged"),
    "gzip with a flipped first byte": Case(flip(BOLD, 0.0), "NIfTI header"),
    "0 bytes": Case(put(BOLD, b""), r"empty \(0 bytes\)"),
    "an error page of a web server": Case(put(BOLD, "<html>404 Not found"), "NIfTI header"),
    "plain data named .nii.gz": Case(
        lambda root: put(BOLD, gzip.decompress((root / BOLD).read_bytes()))(root), "NIfTI header"
    ),
    "compressed data named .nii": Case(renamed(BOLD, ".nii.gz", ".nii"), "NIfTI header"),
    "broken link in place of the image": Case(link(BOLD, "../../.git/annex/MD5E-s1"), MISSING),
    "broken link in place of the mask": Case(link(MASK, "../../.git/annex/MD5E-s1"), MISSING),
    "broken link in place of the events": Case(link(EVENTS, ".git/annex/MD5E-s1"), MISSING),
    "git-annex pointer in place of the image": Case(
        put(BOLD, "/annex/objects/MD5E-s123456--0123456789abcdef0123456789abcdef.nii.gz\n"), MISSING
    ),
    "git-annex pointer in place of the events": Case(
        put(EVENTS, "/annex/objects/MD5E-s99--0123456789abcdef0123456789abcdef.tsv\n"), MISSING
    ),
    "Git LFS pointer": Case(
        put(BOLD, "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "git lfs pull"
    ),
    "link to itself": Case(link(BOLD, BOLD.name), "broken link"),
    "pipe in place of the image": Case(instead(BOLD, os.mkfifo), "not a file"),
    # header
    "more volumes promised than there are": Case(header(48, b"\x28\0"), "truncated"),
    "larger volumes promised than there are": Case(header(42, b"\x40\0"), "truncated"),
    "fewer volumes promised, events beyond": Case(header(48, b"\x05\0"), "beyond the end"),
    "negative dimension": Case(header(42, b"\xff\xff"), "impossible shape|NIfTI header"),
    "dimension of 0": Case(header(44, b"\0\0"), "impossible shape|NIfTI header"),
    "dimension of 32767": Case(header(42, b"\xff\x7f"), "impossible shape"),
    "unknown data type": Case(header(70, b"\x39\x05"), "NIfTI header"),
    "voxels said to begin far behind the end": Case(header(108, b"\0\0\0\x4f"), "truncated|header"),
    "affine of zeros": Case(header(280, b"\0" * 48), "cannot be inverted"),
    "affine with NaN": Case(header(280, b"\0\0\xc0\x7f"), "cannot be inverted"),
    "3D image": Case(voxels(lambda data: data[..., 0]), "is 3D"),
    "5D image": Case(voxels(lambda data: np.stack([data] * 2, -1)), "is 5D"),
    "one volume": Case(voxels(lambda data: data[..., :1]), "one volume"),
    "complex numbers": Case(complex_voxels, "real numbers are expected"),
    "no orientation, which the mask has": odd(header(252, b"\0\0\0\0"), "has no orientation"),
    "no orientation in image and mask": Case(
        after(header(252, b"\0\0\0\0"), header(252, b"\0\0\0\0", MASK)), "has no orientation"
    ),
    "NIfTI-2": odd(nifti2),
    ".nii": odd(uncompressed),
    "scaled integers": odd(scaled_integers),
    "oblique affine": odd(both(OBLIQUE)),
    "left-handed affine": odd(both(FLIPPED)),
    # voxels
    "NaN in one voxel": odd(voxels(nan_in(0.004)), "NaN or Inf left out"),
    "NaN in every tenth voxel": Case(voxels(nan_in(0.1)), "brain voxels are NaN or Inf"),
    "Inf in one voxel": odd(voxels(nan_in(0.004, np.inf)), "NaN or Inf left out"),
    "Inf in every tenth voxel": Case(voxels(nan_in(0.1, -np.inf)), "brain voxels are NaN or Inf"),
    "a constant voxel": odd(voxels(few_constant)),
    "constant everywhere": Case(voxels(constant), "brain voxels varies in time"),
    "zero everywhere": Case(voxels(np.zeros_like), "brain voxels varies in time"),
    "no mean": Case(voxels(lambda d: d - d.mean(-1, keepdims=True)), "denoised, z-scored or detr"),
    "volumes before the steady state": odd(
        voxels(lambda d: d * np.r_[1.5, 1.2, 1.06, np.ones(17)].astype("f4")), ": 0, 1, 2"
    ),
    "half of the volumes are dark": Case(
        voxels(lambda d: d * np.repeat([0.2, 1], [11, 9]).astype("f4")), "volumes are outlying"
    ),
    # mask
    "empty mask": Case(voxels(np.zeros_like, MASK), "empty mask"),
    "mask of NaN": Case(voxels(lambda data: data * np.nan, MASK), "empty mask"),
    "mask of 0 bytes": Case(put(MASK, b""), r"empty \(0 bytes\)"),
    "mask with several volumes": Case(voxels(lambda d: np.stack([d] * 3, -1), MASK), "is 4D"),
    "mask on a finer grid": odd(moved(0, (16, 18, 16)), "is resampled"),
    "mask that lies elsewhere": Case(moved(500, (16, 18, 16)), "same space"),
    # repetition time
    "no TR": Case(without_t_r, "no repetition time"),
    "TR 0": Case(sidecar(RepetitionTime=0), "positive number of seconds"),
    "TR in ms": Case(sidecar(RepetitionTime=2000), "looks like milliseconds"),
    "TR of sidecar and header differ": Case(sidecar(RepetitionTime=2.4), "2.4 s in its sidecar"),
    "TR a text": Case(sidecar(RepetitionTime="2 s"), "a number in s is expected"),
    "TR of 400 digits": Case(sidecar(RepetitionTime=10**400), "positive number of seconds"),
    "TR not constant": Case(
        after(without_t_r, sidecar(VolumeTiming=[0, 2, 5])), "irregular times"
    ),
    "StartTime of a day": odd(sidecar(RepetitionTime=2, StartTime=86400), "StartTime 86400 is ign"),
    "sidecar that is no JSON": Case(put(SIDECAR, "{"), "cannot be read as JSON"),
    "sidecar that is a list": Case(put(SIDECAR, "[1]"), "an object is expected"),
    "sidecar of 100,000 brackets": Case(put(SIDECAR, "[" * 100_000), "cannot be read as JSON"),
    "sidecar in Latin-1": Case(put(SIDECAR, '{"a": "é"}'.encode("latin-1")), "read as JSON"),
    # events
    "events without onset": Case(events("trial_type\tduration\nhand\t1\n"), "no column 'onset'"),
    "events without duration": Case(events("onset\ttrial_type\n1\thand\n"), "no column 'duration'"),
    "events without trial_type": Case(events("onset\tduration\n2\t6\n"), "'event' of task motor"),
    "events separated by commas": Case(events(GOOD.replace("\t", ",")), "not separated by tabs"),
    "events separated by spaces": Case(events(GOOD.replace("\t", " ")), "not separated by tabs"),
    "events of 0 bytes": Case(events(""), r"empty \(0 bytes\)"),
    "events that are blank": Case(events("\n \n"), "is blank"),
    "events with a header alone": Case(events(HEADER), "no usable event"),
    "events in UTF-16": Case(events(GOOD.encode("utf-16")), "not UTF-8"),
    "events with an onset in words": Case(row("soon\t1\thand"), "onset is 'soon'"),
    "events with a negative duration": Case(row("25\t-1\thand"), "duration is negative"),
    "events with a cell too few": Case(row("25\t1"), "line 4: 2 cells"),
    "events beyond the run": Case(row("900\t1\thand"), "beyond the end of the run"),
    "events in ms": Case(events(f"{HEADER}2000\t6000\thand\n12000\t6000\tfoot\n"), "milliseconds"),
    "no events": Case(lambda root: (root / EVENTS).unlink(), r"no events\.tsv applies"),
    "events with a trial type that nobody else has": odd(
        row("25\t3\ttongue"), "no training participant has the trial type motor/tongue"
    ),
    "an event after the last volume": odd(
        row("22\t3\thand\n30\t3\tfoot\n41\t1\thand"), "1 of 5 events left out"
    ),
    "negative onset": odd(row("-3\t5\thand")),
    "duration n/a": odd(row("25\tn/a\thand")),
    "zero-length event": odd(row("25\t0\thand")),
    "endless event": odd(row("25\t1e300\thand")),
    "event from long ago until now": odd(row("-1e9\t1000000010\thand")),
    "overlapping events": odd(row("3\t6\tfoot")),
    "unsorted events": odd(row("1\t1\tfoot")),
    "onset n/a": odd(row("n/a\t1\thand"), "1 of 3 rows left out"),
    "byte-order mark": odd(events("\ufeff" + GOOD)),
    "CRLF": odd(events(GOOD.replace("\n", "\r\n"))),
    "an index that pandas wrote": odd(
        events("\tonset\tduration\ttrial_type\n0\t2\t6\thand\n1\t12\t6\tfoot\n")
    ),
    # dataset
    "label with odd characters": Case(
        renamed(BOLD, "task-motor", "task-mo;tor"), "may hold only letters and digits"
    ),
    "label that leads upwards": Case(
        renamed(BOLD, "_task-motor", "_acq-.._task-motor"), "may hold only letters and digits"
    ),
    "image in another participant's folder": Case(
        renamed(BOLD, "sub-02/func", "sub-03/func"), "belongs in the folder sub-02/func"
    ),
    "mixed spaces": Case(other_space, f"does not exist in the space {SPACE}"),
    "participants.tsv of others": odd(
        put(Path("participants.tsv"), "participant_id\tsite\nsub-01\ta\nsub-77\tb\n"),
        r"participants\.tsv .*lacks sub-02",
    ),
    "participants.tsv that is no text": odd(
        put(Path("participants.tsv"), b"\xff\xfe\0"), r"participants\.tsv is ignored"
    ),
    "dataset_description.json that is no JSON": hopeless(
        put(Path("dataset_description.json"), "{"), "read as JSON", 16
    ),
    "dataset_description.json that is a list": hopeless(
        put(Path("dataset_description.json"), "[]"), "an object is expected", 16
    ),
    "dataset_description.json without Name": hopeless(
        put(Path("dataset_description.json"), '{"BIDSVersion": "1.10.0"}'), "no Name", 16
    ),
}  # fmt: skip
