"""Seconds and memory of every stage, as participants become more.

The cohorts are ten simulated participants, small images and real tables, as often as
it takes, under other labels. Each stage is a call of the command line in a process of
its own: finding the runs (a dry run), learning (two steps of each training; reading,
statistics and preparing are told apart by the model's own record), writing the runs of
the held-out participants, and comparing them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from measuring import Called, call_program, head, machine, row

from fmrisynth.phantom import PhantomConfig, simulate_cohort

SIMULATED = 10
SETTINGS = (
    "preprocess.voxel_size=12", "autoencoder.patch=2", "denoiser.backbone.widths=[32,64]",
    "denoiser.backbone.blocks=[1,1]", "sampling.steps=2", "diffusion_training.batch_size=4",
)  # fmt: skip


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("counts", nargs="*", type=int, default=[10, 100, 1000])
    parser.add_argument("--nprocs", type=int, default=2, help="processes that read runs")
    parser.add_argument("--n-volumes", type=int, default=48)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tasks", nargs="+", default=["MOTOR"], help="two runs of each")
    parser.add_argument("--written", type=int, help="held-out participants whose runs are written")
    parser.add_argument("--without-group", action="store_true")
    return parser.parse_args()


def fmrisynth(words: list[str]) -> Called:
    """Call the command line."""
    return call_program([sys.executable, "-m", "fmrisynth", *words])


def multiply(source: Path, root: Path, count: int) -> None:
    """Write a cohort of `count` participants: those of the source, again and again."""
    labels = sorted(path.name for path in source.glob("sub-*"))
    copies = [(labels[i % len(labels)], f"sub-{i + 1:05d}") for i in range(count)]
    for folder, _, names in os.walk(source):
        inside = Path(folder).relative_to(source)
        own = next((part for part in inside.parts if part.startswith("sub-")), None)
        for name in names:
            if name.startswith("participants.") and name.endswith(".tsv"):
                _multiply_table(Path(folder, name), root / inside / name, copies)
                continue
            for label, new in copies if own else [("", "")]:
                if own not in (None, label):
                    continue
                path = Path(str(inside / name).replace(label, new) if own else inside / name)
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                os.link(Path(folder, name), root / path)


def _multiply_table(source: Path, path: Path, copies: list[tuple[str, str]]) -> None:
    """Write participants.tsv with a row for each copy."""
    first, *lines = source.read_text().splitlines()
    rows = {line.split("\t")[0]: line for line in lines}
    path.parent.mkdir(parents=True, exist_ok=True)
    repeated = [rows[label].replace(label, new) for label, new in copies]
    path.write_text("\n".join([first, *repeated]) + "\n")


def stages(root: Path, out: Path, options: argparse.Namespace) -> list[str]:
    """Call every stage for one cohort; cells of its row, each printed when it is there."""
    common = ["--nprocs", str(options.nprocs), "--device", options.device]
    settings = [word for item in SETTINGS for word in ("--set", item)]
    learning = ["--max-steps", "2", *settings, *common]
    cells = []

    def stage(*words: str) -> None:
        cells.append(fmrisynth([str(root), str(out), *words]).cell())
        named = " ".join(word for word in words[:2] if word not in common)
        print(f"  {root.name}: {named} {cells[-1]}", flush=True)

    stage("participant", "--dry-run", *learning)
    stage("participant", "--train-only", *learning)
    config = json.loads((out / "model" / "config.json").read_text())
    spent = ", ".join(f"{k} {v:g}" for k, v in config["provenance"]["seconds"].items())
    print(f"  learning: {spent}", flush=True)
    written = config["split"]["held_out"][: options.written]
    stage("participant", "--participant-label", *written, *common)
    cells.insert(2, str(len(list(out.glob("sub-*/**/*_bold.nii.gz")))))
    if not options.without_group:
        stage("group", *common)
    return cells


def main() -> None:
    options = arguments()
    print(machine(options.device))
    print("seconds (CPU seconds; GiB of the largest process)\n")
    columns = ["finding", "learning, 2 steps", "runs written", "writing", "group"]
    rows = [head("participants", *columns[: 4 + (not options.without_group)])]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = PhantomConfig(
            SIMULATED, options.n_volumes, voxel_size=12.0, tasks=tuple(options.tasks), tsnr=150.0
        )
        simulate_cohort(folder / "ten", config, progress=False)
        for count in options.counts:
            multiply(folder / "ten", folder / f"cohort-{count}", count)
            cells = stages(folder / f"cohort-{count}", folder / f"out-{count}", options)
            rows.append(row(count, *cells))
            print(rows[-1], flush=True)
    print()
    print("\n".join(rows))


if __name__ == "__main__":
    main()
