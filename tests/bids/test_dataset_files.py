"""The files of an output dataset: repeatable, and safe when several processes write them."""

from __future__ import annotations

import multiprocessing
import shutil
from pathlib import Path

from fmrisynth.bids.dataset_files import write_dataset_files, write_participants


def _add_participant(out: Path, label: str) -> None:
    (out / f"sub-{label}").mkdir(parents=True)
    write_participants(out, {label: "held_out"})


def test_participants_of_parallel_processes(tmp_path: Path) -> None:
    labels = [f"{i:02d}" for i in range(4)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.starmap(_add_participant, [(tmp_path, label) for label in labels])
    rows = (tmp_path / "participants.tsv").read_text().splitlines()
    assert rows[0] == "participant_id\tsynthetic\trole"
    assert rows[1:] == [f"sub-{label}\tyes\theld_out" for label in labels]
    shutil.rmtree(tmp_path / "sub-00")
    write_participants(tmp_path, {})
    assert (tmp_path / "participants.tsv").read_text().splitlines()[1:] == rows[2:]


def test_reruns_do_not_change_dataset_files(tiny_bids: Path, tmp_path: Path) -> None:
    write_dataset_files(tmp_path, tiny_bids)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert before.keys() == {"dataset_description.json", "README.md", "CHANGES", ".bidsignore"}
    (tmp_path / "CHANGES").write_text("mine\n")
    write_dataset_files(tmp_path, tiny_bids)
    after = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert after == {**before, "CHANGES": b"mine\n"}
    assert str(tiny_bids) not in before["dataset_description.json"].decode()
