"""Feed the readers of events, headers, sidecars and voxels with garbage until the time is up.

    python tests/campaigns/fuzz.py --minutes 30 --target events
    python tests/campaigns/fuzz.py --minutes 30 --target images

Whatever a file holds, reading it gives something usable or a `FmrisynthError`
that names the file. Anything else ends the campaign with the smallest input that
does it, as hypothesis found it, and exit code 1.
"""

from __future__ import annotations

import argparse
import gzip
import json
import logging
import math
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from fmrisynth.bids.dataset import Run
from fmrisynth.bids.events import events_table_bytes, read_events
from fmrisynth.bids.headers import read_header, repetition_time, require_bold
from fmrisynth.bids.images import load_bold, load_mask
from fmrisynth.bids.sidecars import read_json
from fmrisynth.bids.synthetic_sidecars import events_sidecar
from fmrisynth.errors import FmrisynthError

LARGEST = 2**22  # voxels; what a header promises beyond it is not loaded here
RUN_LENGTH = 100.0  # s

# Events

numbers = st.one_of(
    st.integers(-(10**25), 10**25).map(str),
    st.floats().map(repr),
    st.floats(-50, 150).map(lambda value: f"{value:.3f}"),
    st.sampled_from(
        [
            "n/a",
            "N/A",
            "nan",
            "-nan",
            "inf",
            "-inf",
            "1e400",
            "-1e400",
            "1e-400",
            "٣",
            "0x10",
            "1_0",
            "+1",
            ".5",
            "5.",
            "1,5",
            "--1",
            "−1",
            "1e308",
            "-0",
        ]
    ),
    st.sampled_from(["", " 1 ", "1\x00", "\ufeff1"]),
)
cells = st.one_of(
    numbers, st.text(max_size=8), st.sampled_from(["a", "hand", "'", '"', "\\", "\r"])
)
headers = st.one_of(
    st.permutations(["onset", "duration", "trial_type", "modulation", "response"]),
    st.lists(
        st.sampled_from(["onset", "duration", "trial_type", " onset", "Onset", ""]), max_size=6
    ),
    st.lists(st.text(max_size=10), max_size=4),
)


@st.composite
def tables(draw: st.DrawFn) -> bytes:
    """Return tables that are almost right: wrong cells, ends of line, separators, encodings."""
    header = draw(headers)
    wrong_width = draw(st.booleans())
    rows = []
    for _ in range(draw(st.integers(0, 6))):
        row = [draw(numbers if name in ("onset", "duration") else cells) for name in header]
        if wrong_width and draw(st.integers(0, 4)) == 0:
            row += draw(st.lists(cells, max_size=3))
        rows.append(row)
    separator = draw(st.sampled_from(["\t"] * 8 + [",", " ", ";", "\t\t"]))
    end = draw(st.sampled_from(["\n", "\r\n", "\r", "\n\n", "\x0b", "\u2028"]))
    text = end.join(separator.join(row) for row in [list(header), *rows])
    if draw(st.booleans()):
        text += end
    encoding = draw(st.sampled_from(["utf-8"] * 6 + ["utf-8-sig", "utf-16", "latin-1", "utf-32"]))
    return mutated(draw, text.encode(encoding, "replace"))


def mutated(draw: st.DrawFn, content: bytes, most: int = 3) -> bytes:
    """Flip, insert, drop or cut a few bytes."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(0, most))):
        if not changed:
            break
        place = draw(st.integers(0, len(changed) - 1))
        match draw(st.integers(0, 3)):
            case 0:
                changed[place] ^= 1 << draw(st.integers(0, 7))
            case 1:
                changed[place:place] = draw(st.binary(min_size=1, max_size=4))
            case 2:
                del changed[place : place + draw(st.integers(1, 8))]
            case _:
                del changed[place:]
    return bytes(changed)


def names_the_file(error: FmrisynthError, path: Path) -> None:
    """Refuse messages that do not say where."""
    if str(path) not in str(error):
        raise AssertionError(f"{path} is not named in: {error}")


def check_events(path: Path, content: bytes) -> None:
    """Read as events what may be anything."""
    path.write_bytes(content)
    for duration in (None, RUN_LENGTH):
        try:
            frame = read_events(path, duration=duration)
        except FmrisynthError as error:
            names_the_file(error, path)
            continue
        assert len(frame) > 0
        assert frame["onset"].is_monotonic_increasing
        assert np.isfinite(frame[["onset", "duration"]].to_numpy()).all()
        assert (frame["duration"] >= 0).all()
        assert (frame["trial_type"].str.len() > 0).all()
        if duration is not None:
            assert (frame["onset"] < duration).all()
    try:
        copied = events_table_bytes(path)
        described = events_sidecar(path)
    except FmrisynthError as error:
        names_the_file(error, path)
        return
    json.dumps(described, allow_nan=False)
    again = path.with_name("again_events.tsv")
    again.write_bytes(copied)
    assert events_table_bytes(again) == copied  # what is written is read as it is


# Images and their sidecars

FIELDS = {  # offset and struct format of the fields that decide how an image is read
    "sizeof_hdr": (0, "i"), "dim_info": (39, "B"), "datatype": (70, "h"), "bitpix": (72, "h"),
    "vox_offset": (108, "f"), "scl_slope": (112, "f"), "scl_inter": (116, "f"),
    "xyzt_units": (123, "B"), "qform_code": (252, "h"), "sform_code": (254, "h"),
}  # fmt: skip
FIELDS |= {f"dim{i}": (40 + 2 * i, "h") for i in range(8)}
FIELDS |= {f"pixdim{i}": (76 + 4 * i, "f") for i in range(8)}
FIELDS |= {f"quatern{i}": (256 + 4 * i, "f") for i in range(6)}
FIELDS |= {f"srow{i}": (280 + 4 * i, "f") for i in range(12)}
VALUES = {
    "B": st.integers(0, 255),
    "h": st.one_of(st.integers(-(2**15), 2**15 - 1), st.sampled_from([-1, 0, 1, 2, 3, 4, 5, 7])),
    "i": st.one_of(st.integers(-(2**31), 2**31 - 1), st.sampled_from([348, 540, 0])),
    "f": st.one_of(st.floats(width=32), st.sampled_from([0.0, -1.0, 1.0, 352.0, 1e30, -1e30])),
}


def valid_image(shape: tuple[int, ...], order: str, dtype: str) -> bytes:
    """Return a small NIfTI-1 file that is right."""
    data = np.random.default_rng(0).integers(1, 100, shape).astype(order + dtype)
    header = nib.Nifti1Header(endianness=order)
    header.set_data_dtype(data.dtype)
    image = nib.Nifti1Image(data, np.diag([4.0, 4, 4, 1]), header)
    image.header.set_xyzt_units("mm", "sec")
    image.header["pixdim"][4] = 2
    return bytes(image.to_bytes())


VALID = [
    (order, valid_image(shape, order, dtype))
    for order in "<>"
    for dtype in ("i2", "f4", "u1", "f8")
    for shape in ((4, 5, 4, 6), (4, 5, 4), (3, 3, 3, 2))
]


@st.composite
def images(draw: st.DrawFn) -> tuple[bytes, bool]:
    """Return images that are almost right, and whether they are compressed."""
    order, content = draw(st.sampled_from(VALID))
    changed = bytearray(content)
    for name in draw(st.lists(st.sampled_from(sorted(FIELDS)), max_size=3)):
        offset, kind = FIELDS[name]
        struct.pack_into(order + kind, changed, offset, draw(VALUES[kind]))
    raw = mutated(draw, bytes(changed), most=2)
    if not draw(st.booleans()):
        return raw, False
    packed = gzip.compress(raw, 1, mtime=0)
    return (mutated(draw, packed) if draw(st.booleans()) else packed), True


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
sidecars = st.one_of(
    st.builds(
        lambda value: json.dumps({"RepetitionTime": value}).encode(),
        st.one_of(json_values, st.floats(0, 30), st.integers(10**308, 10**320)),
    ),
    json_values.map(lambda content: json.dumps(content).encode()),
    st.binary(max_size=30),
    st.integers(1, 2000).map(lambda depth: b"[" * depth),
)  # fmt: skip


def check_image(folder: Path, image: tuple[bytes, bool], sidecar: bytes) -> None:
    """Read as a run and as a mask what may be anything."""
    content, compressed = image
    path = folder / ("sub-01_task-x_bold.nii" + (".gz" if compressed else ""))
    path.write_bytes(content)
    described = folder / "sub-01_task-x_bold.json"
    described.write_bytes(sidecar)
    try:
        header = read_header(path)
        assert np.isfinite(header.affine).all()
        assert header.t_r is None or (math.isfinite(header.t_r) and header.t_r > 0)
        if math.prod(header.shape) > LARGEST:
            return
        run = as_run(path, header.shape, header.affine)
        load_mask(run)
        require_bold(header, path)
        bold = load_bold(run)
        assert np.isfinite(bold.data).all()
        assert bold.mask.any()
        t_r = repetition_time(read_json(described), header, path)
        assert math.isfinite(t_r)
        assert t_r > 0
    except FmrisynthError as error:
        names_the_file(error, folder)


def as_run(path: Path, shape: tuple[int, ...], affine: np.ndarray) -> Run:
    """Return a run whose image is its own mask."""
    spatial = (*shape, 1, 1, 1)[:3]
    return Run(
        entities={"sub": "01", "task": "x"},
        bold=path,
        mask=path if len(shape) < 4 or shape[3] == 1 else None,
        events=path.with_name("sub-01_task-x_events.tsv"),
        space=None,
        resolution=None,
        t_r=2.0,
        start_time=0.0,
        shape=(spatial[0], spatial[1], spatial[2]),
        n_volumes=shape[3] if len(shape) > 3 else 1,
        affine=affine,
    )


# The campaign


def campaign(target: str, minutes: float, examples: int = 2000, first_seed: int = 0) -> int:
    """Run rounds of examples, each with its own seed, until the time is up; return their number."""
    quiet = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    logging.disable(logging.CRITICAL)
    ends = time.monotonic() + 60 * minutes
    rounds = 0
    with tempfile.TemporaryDirectory(prefix="fmrisynth-fuzz-") as name:
        check = quiet({"events": events_check, "images": images_check}[target](Path(name)))
        while rounds == 0 or time.monotonic() < ends:
            seed(first_seed + rounds)(check)()
            rounds += 1
            if rounds % 10 == 1:
                print(f"{target}: {rounds * examples} inputs, nothing found", flush=True)
    print(f"{target}: {rounds * examples} inputs in {minutes:g} min, nothing found", flush=True)
    return rounds * examples


def events_check(folder: Path) -> Callable[[], None]:
    """Return the property of events files."""
    anything = st.one_of(tables(), tables(), tables(), st.binary(max_size=200))

    @given(content=anything)
    def check(content: bytes) -> None:
        check_events(folder / "sub-01_task-x_events.tsv", content)

    return check


def images_check(folder: Path) -> Callable[[], None]:
    """Return the property of images."""

    @given(image=images(), sidecar=sidecars)
    def check(image: tuple[bytes, bool], sidecar: bytes) -> None:
        check_image(folder, image, sidecar)

    return check


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--target", choices=["events", "images"], required=True)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    campaign(options.target, options.minutes, first_seed=options.seed)
    sys.exit(0)
