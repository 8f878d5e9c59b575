"""Kill -9 at random moments of both levels: a rerun must give what an unbroken run gives.

    python tests/campaigns/kill.py --participant 20 --group 20

Each kill starts on a fresh output directory. Kills are spread evenly over the time
from the first file written to the end; a random offset within each part decides the
moment. With every second one the work directory lies apart. Exit code 1 when a rerun
fails, differs, or leaves temporary files.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from campaigns.common import GROUP, TINY, differences, leftovers, listing, start, tiny_dataset

PATIENCE = 600.0  # s


def campaign(folder: Path, n_participant: int, n_group: int, seed: int = 0) -> list[str]:
    """Kill both levels at random moments and return what went wrong."""
    chance = random.Random(seed)
    dataset = tiny_dataset(folder / "bids")
    unbroken = folder / "unbroken"
    seconds = _timed(dataset, unbroken, "participant", TINY)
    problems = []
    whole = listing(unbroken)
    for index in range(n_participant):
        out = folder / f"participant-{index}"
        moment = seconds * (index + chance.random()) / n_participant
        problems += _once(dataset, out, "participant", TINY, moment, whole, apart=index % 2 == 1)
    if not n_group:
        return problems
    before_group = folder / "before-group"
    shutil.copytree(unbroken, before_group)
    seconds = _timed(dataset, unbroken, "group", GROUP)
    whole = listing(unbroken)
    for index in range(n_group):
        out = folder / f"group-{index}"
        shutil.copytree(before_group, out)
        moment = seconds * (index + chance.random()) / n_group
        problems += _once(dataset, out, "group", GROUP, moment, whole, apart=index % 2 == 1)
    return problems


def _once(
    dataset: Path,
    out: Path,
    level: str,
    options: Sequence[str],
    moment: float,
    whole: dict[str, str],
    *,
    apart: bool,
) -> list[str]:
    """Kill one call, run it again, compare; the output is removed when it is right."""
    work = out.with_name(f"{out.name}-work")
    options = [*options, "--work-dir", str(work)] if apart else options
    process = start(dataset, out, level, *options)
    _wait_for_first_file(process, out, _logs(out))
    time.sleep(moment)
    process.kill()
    process.communicate()
    left = leftovers(out, *([work] if apart else []))
    again = start(dataset, out, level, *options)
    _, messages = again.communicate(timeout=PATIENCE)
    problems = []
    if again.returncode:
        problems.append(f"the rerun ended with {again.returncode}: {messages[-2000:]}")
    problems += differences(whole, listing(out))
    problems += [f"left over {name}" for name in leftovers(out, *([work] if apart else []))]
    problems += [f"traceback: {messages[-2000:]}"] if "Traceback" in messages else []
    if not apart and (out / "work").exists():
        problems.append(f"left over {out / 'work'}")
    killed = "killed" if process.returncode < 0 else "had ended"
    verdict = "; ".join(problems) or "as unbroken"
    print(f"{out.name}: {killed} at {moment:.2f} s with {len(left)} half-written; {verdict}",
          flush=True)  # fmt: skip
    if not problems:
        for folder in (out, work):
            shutil.rmtree(folder, ignore_errors=True)
    return [f"{out.name} (killed at {moment:.2f} s): {problem}" for problem in problems]


def _timed(dataset: Path, out: Path, level: str, options: Sequence[str]) -> float:
    """Run one level to its end; seconds from its first file on."""
    logs = _logs(out)
    process = start(dataset, out, level, *options)
    _wait_for_first_file(process, out, logs)
    began = time.monotonic()
    _, messages = process.communicate(timeout=PATIENCE)
    if process.returncode:
        raise SystemExit(f"the unbroken {level} level failed: {messages[-4000:]}")
    print(f"{level}: {time.monotonic() - began:.1f} s from its first file on", flush=True)
    return time.monotonic() - began


def _logs(out: Path) -> int:
    """Log files in an output directory; each call opens its own before anything else."""
    return len(list((out / "logs").glob("*.log")))


def _wait_for_first_file(process: subprocess.Popen[str], out: Path, logs: int) -> None:
    """Wait until a call has opened its log, or ended: imports are no moment worth killing at."""
    ends = time.monotonic() + PATIENCE
    while _logs(out) == logs and process.poll() is None and time.monotonic() < ends:
        time.sleep(0.02)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--participant", type=int, default=20, metavar="N")
    parser.add_argument("--group", type=int, default=20, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to work; kept [default: temporary]")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fmrisynth-kill-") as temporary:
        found = campaign(
            given.folder or Path(temporary), given.participant, given.group, given.seed
        )
    print("\n".join(found) or "every rerun gave what an unbroken run gives")
    sys.exit(1 if found else 0)
