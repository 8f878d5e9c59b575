"""Kills, parallel calls, full disks and signals end clearly and leave no half-written file."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import pandas as pd
import pytest
from campaigns.common import TINY, differences, leftovers, listing, start, tiny_dataset
from campaigns.kill import campaign
from filelock import FileLock
from support.tiny_model import make_model

pytestmark = pytest.mark.slow

PATIENCE = 300  # s
IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
needs_root = pytest.mark.skipif(not IS_ROOT, reason="only root can mount")
LOADED = ["--sampling-steps", 1, "--precision", "32-true", "--device", "cpu", "--nprocs", 1]


@pytest.fixture(scope="module")
def bids(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four participants with one run each."""
    root = tmp_path_factory.mktemp("faults") / "bids"
    return tiny_dataset(root, participants=("01", "02", "03", "04"), tasks=("motor",))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("faults") / "model"
    make_model().save(directory)
    return directory


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and messages of a process that must end by itself, without a traceback."""
    try:
        _, messages = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert "Traceback" not in messages, messages[-4000:]
    assert "Exception ignored" not in messages, messages[-4000:]
    return process.returncode, messages


def images(out: Path) -> list[Path]:
    """Synthetic images, each of which can be read to its end."""
    found = sorted(out.rglob("*_desc-synth_bold.nii.gz"))
    for path in found:
        assert nib.load(path).get_fdata().shape == (8, 9, 8, 20)
    return found


def wait_for(path: Path, pattern: str) -> Path:
    """Wait until a file that fits the pattern lies below a folder."""
    ends = time.monotonic() + PATIENCE
    while time.monotonic() < ends:
        if found := next(iter(path.glob(pattern)), None):
            return found
        time.sleep(0.02)
    raise AssertionError(f"no {pattern} in {path}")


# Kills


@pytest.mark.campaign
def test_kills(tmp_path: Path) -> None:
    """The short form of ``tests/campaigns/kill.py``."""
    assert campaign(tmp_path, n_participant=2, n_group=1, seed=1) == []


def test_workers_do_not_outlive_a_kill(bids: Path, tmp_path: Path) -> None:
    """The processes of --nprocs end when the one that started them is killed."""
    words = [*TINY[:-1], 2]
    process = start(bids, tmp_path / "out", "participant", *words)
    children: list[int] = []
    while not children and process.poll() is None:
        time.sleep(0.02)
        children = _workers_of(process.pid)
    process.kill()
    process.wait()
    assert children
    ends = time.monotonic() + 60
    while (alive := [pid for pid in children if _is_alive(pid)]) and time.monotonic() < ends:
        time.sleep(0.1)
    for pid in alive:
        os.kill(pid, signal.SIGKILL)
    process.communicate()
    assert not alive


def _workers_of(pid: int) -> list[int]:
    """Processes that multiprocessing spawned for a process."""
    with contextlib.suppress(OSError):
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        words = {int(child): Path(f"/proc/{child}/cmdline").read_bytes() for child in found}
        return [child for child, line in words.items() if b"spawn_main" in line]
    return []


def _is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


# Several processes


def test_four_processes_on_one_output(bids: Path, tmp_path: Path) -> None:
    """One trains, the others use its model, and together they give what one call gives."""
    alone, out, work = tmp_path / "alone", tmp_path / "out", tmp_path / "work"
    labels = ("01", "02", "03", "04")
    crowd = [
        start(bids, out, "participant", *TINY, "--participant-label", label, "-w", work)
        for label in labels
    ]
    ends = [ended(process) for process in crowd]
    assert [code for code, _ in ends] == [0] * 4
    assert sum("training on" in messages for _, messages in ends) == 1
    assert ended(start(bids, alone, "participant", *TINY))[0] == 0
    assert differences(listing(alone), listing(out)) == []
    assert leftovers(out, work) == []
    assert len(images(out)) == 4
    table = pd.read_csv(out / "participants.tsv", sep="\t", dtype=str)
    assert list(table["participant_id"]) == [f"sub-{label}" for label in labels]
    assert set(table["role"]) == {"training", "held_out"}


def test_who_waits_says_so(bids: Path, tmp_path: Path) -> None:
    """While another process trains; when its lock is free, this one trains."""
    out, work = tmp_path / "out", tmp_path / "work"
    first = start(bids, out, "participant", *TINY, "--train-only", "-w", work)
    lock = wait_for(tmp_path, "**/training.lock")
    assert ended(first)[0] == 0
    shutil.rmtree(out / "model")
    lock.parent.mkdir(exist_ok=True)
    with FileLock(lock):
        process = start(bids, out, "participant", *TINY, "--train-only", "-w", work)
        assert process.stderr is not None
        said = ""
        while "waiting for it" not in said and process.poll() is None:
            said += process.stderr.readline()
        assert "another process is training the model" in said
        assert "training.lock" in said
        assert not (out / "model").exists()
    assert ended(process)[0] == 0
    assert (out / "model" / "config.json").is_file()


def test_the_lock_of_a_dead_process_is_free(bids: Path, tmp_path: Path) -> None:
    out, work = tmp_path / "out", tmp_path / "work"
    words = (bids, out, "participant", *TINY, "-w", work)
    process = start(*words)
    wait_for(work, "autoencoder-*")  # the lock is held from before this on
    process.kill()
    process.communicate()
    code, messages = ended(start(*words))
    assert code == 0
    assert "waiting" not in messages
    assert len(images(out)) == 4


# Signals


@pytest.mark.parametrize("moment", ["training", "synthesis"])
def test_sigterm(bids: Path, model: Path, tmp_path: Path, moment: str) -> None:
    """A batch system's end of time: an exit code that says so, and a rerun that goes on."""
    out, work = tmp_path / "out", tmp_path / "work"
    if moment == "training":
        words = [*TINY, "-w", work, "--max-steps", 100_000]
        pattern = "diffusion-*/log.csv"
    else:
        words = [*LOADED, "--model", model, "-w", work, "--n-samples", 500]
        pattern = "sub-01/func/*_bold.json"
    process = start(bids, out, "participant", *words)
    wait_for(work if moment == "training" else out, pattern)
    process.send_signal(signal.SIGTERM)
    code, messages = ended(process)
    assert leftovers(out, work) == []
    if moment == "training":
        assert code == 1
        assert re.search(r"stopped by SIGTERM at step \d+; the state is in .*state\.pt", messages)
        assert "Run the same command again" in messages
        assert next(work.glob("diffusion-*/state.pt")).stat().st_size > 0
        assert not (out / "model").exists()
    else:
        assert code == 128 + signal.SIGTERM
        assert "stopped by SIGTERM" in messages
        assert "run the same command again" in messages
        assert len(images(out)) == len(list(out.rglob("*_bold.json"))) > 0


# Disks


@contextlib.contextmanager
def mounted(folder: Path, *words: object) -> Iterator[Path]:
    """Mount something for as long as the block lasts."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["mount", *map(str, words), str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@needs_root
@pytest.mark.parametrize("size", ["40k", "100k", "220k", "300k"])
def test_output_on_a_full_disk(bids: Path, model: Path, tmp_path: Path, size: str) -> None:
    """The run that did not fit leaves nothing; the same command goes on when there is room."""
    where = tmp_path / "small"
    words = (*LOADED, "--model", model, "-w", tmp_path / "work", "--n-samples", 8)
    with mounted(where, "-t", "tmpfs", "-o", f"size={size}", "tmpfs"):
        out = where / "out"
        code, messages = ended(start(bids, out, "participant", *words))
        assert code == 74, messages
        assert "No space left on device" in messages
        assert str(where) in messages
        assert "run the same command again" in messages
        assert leftovers(out) == []
        finished = len(images(out))
        assert len(list(out.rglob("*_bold.json"))) <= finished
        subprocess.run(["mount", "-o", "remount,size=64m", str(where)], check=True)
        code, messages = ended(start(bids, out, "participant", *words))
        assert code == 0, messages
        assert len(images(out)) == 32
        assert leftovers(out) == []


@needs_root
@pytest.mark.parametrize("size", ["64k", "400k", "2500k"])
def test_work_on_a_full_disk(bids: Path, tmp_path: Path, size: str) -> None:
    """Caches and training states do not fit."""
    out, where = tmp_path / "out", tmp_path / "small"
    words = (bids, out, "participant", *TINY, "--train-only", "-w", where / "work")
    with mounted(where, "-t", "tmpfs", "-o", f"size={size}", "tmpfs"):
        code, messages = ended(start(*words))
        assert code == 74, messages
        assert re.search(r"No space left on device|requested and \d+ written", messages)  # numpy's
        assert "free some space" in messages
        assert leftovers(out, where) == []
        assert not (out / "model").exists()
        subprocess.run(["mount", "-o", "remount,size=64m", str(where)], check=True)
        assert ended(start(*words))[0] == 0
        assert leftovers(out, where) == []


@needs_root
def test_output_is_read_only(bids: Path, model: Path, tmp_path: Path) -> None:
    where = tmp_path / "output"
    (where / "out").mkdir(parents=True)
    (where / "used" / "logs").mkdir(parents=True)  # as an earlier call leaves it
    with mounted(where, "--bind", where), _read_only(where):
        for out in (where / "out", where / "new", where / "used"):
            code, messages = ended(
                start(bids, out, "participant", *LOADED, "--model", model, "-w", tmp_path / "work")
            )
            assert code == 73, messages
            assert str(out) in messages
            assert "Read-only file system" in messages


@needs_root
def test_work_is_read_only(bids: Path, tmp_path: Path) -> None:
    where = tmp_path / "work"
    where.mkdir()
    with mounted(where, "--bind", where), _read_only(where):
        code, messages = ended(
            start(bids, tmp_path / "out", "participant", *TINY, "-w", where / "new")
        )
        assert code == 73, messages
        assert str(where) in messages
        assert "Read-only file system" in messages


@needs_root
def test_input_is_read_only(bids: Path, model: Path, tmp_path: Path) -> None:
    """As containers mount it."""
    where, models = tmp_path / "input", tmp_path / "models"
    shutil.copytree(bids, where)
    shutil.copytree(model, models)
    with (
        mounted(where, "--bind", where), _read_only(where),
        mounted(models, "--bind", models), _read_only(models),
    ):  # fmt: skip
        out = tmp_path / "out"
        code, messages = ended(start(where, out, "participant", *LOADED, "--model", models))
        assert code == 0, messages
        assert len(images(out)) == 4


@contextlib.contextmanager
def _read_only(folder: Path) -> Iterator[None]:
    subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)
    yield


@needs_root
def test_no_permission_to_write(bids: Path, model: Path, tmp_path: Path) -> None:
    """A folder that even root may not change: others cannot run the Python of every machine."""
    locked = tmp_path / "locked"
    locked.mkdir()
    if subprocess.run(["chattr", "+i", str(locked)], capture_output=True, check=False).returncode:
        pytest.skip("this file system has no immutable folders")
    try:
        out = locked / "out"
        code, messages = ended(start(bids, out, "participant", *LOADED, "--model", model))
    finally:
        subprocess.run(["chattr", "-i", str(locked)], check=True)
    assert code == 73, messages
    assert "Operation not permitted" in messages
    assert str(out) in messages


# Surroundings


@pytest.mark.parametrize("home", [None, "/proc/none", "/dev/null"])
def test_home_is_missing(bids: Path, model: Path, tmp_path: Path, home: str | None) -> None:
    """HOME unset, not creatable, no folder; nor anything that stands for it."""
    variables = dict.fromkeys(
        ("HOME", "MPLCONFIGDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "TEMPLATEFLOW_HOME")
    )
    out = tmp_path / "out"
    words = (*LOADED, "--model", model)
    code, messages = ended(start(bids, out, "participant", *words, env=variables | {"HOME": home}))
    assert code == 0, messages
    assert len(images(out)) == 4


@needs_root
def test_no_network(bids: Path, tmp_path: Path) -> None:
    """Both levels, in a namespace without any interface."""
    alone = ("unshare", "-n")
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no network namespace can be made here")
    out = tmp_path / "out"
    code, messages = ended(start(bids, out, "participant", *TINY, prefix=alone))
    assert code == 0, messages
    began = time.monotonic()
    code, messages = ended(start(bids, out, "group", "--nprocs", 1, prefix=alone))
    assert code == 0, messages
    assert time.monotonic() - began < 120  # nobody waits for a network that is not there
    assert (out / "group.html").is_file()
