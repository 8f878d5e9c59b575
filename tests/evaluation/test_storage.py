"""An evaluation on disk: equal when read back, and clear errors for other files."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from support.evaluation_cohort import HELD_OUT, TRAINING, Recipe, write_cohort

from fmrisynth.errors import DataError
from fmrisynth.evaluation import storage as saved
from fmrisynth.evaluation.evaluate import evaluate
from fmrisynth.evaluation.export import metrics_table, write_maps
from fmrisynth.evaluation.storage import FILE_NAME, load_evaluation, save_evaluation
from fmrisynth.reports.html import render_group_report

pytestmark = pytest.mark.slow


def same(a, b) -> bool:
    """Deep equality; NaN equals NaN."""
    if type(a) is not type(b):
        return False
    if dataclasses.is_dataclass(a):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind in "fc")
    if isinstance(a, nib.Nifti1Image):
        return np.array_equal(a.affine, b.affine) and same(
            np.asarray(a.dataobj), np.asarray(b.dataobj)
        )
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or (a != a and b != b)


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory):
    root = tmp_path_factory.mktemp("saved")
    held_out = write_cohort(root / "real", HELD_OUT[:2])
    training = write_cohort(root / "real", TRAINING[:2])
    made = write_cohort(root / "made", HELD_OUT[:2], Recipe(noise_seed=1))
    return evaluate(held_out, training, {"ours": made}, work_dir=root / "work", progress=False)


def test_everything_but_the_records_comes_back_equal(evaluation, tmp_path):
    assert not same(evaluation, replace(evaluation, nyquist=0.123))  # the comparison can fail
    save_evaluation(evaluation, tmp_path)
    again = load_evaluation(tmp_path)
    assert again.records == {}
    assert same(again, replace(evaluation, records={}))


def test_reports_and_tables_are_made_again_to_the_letter(evaluation, tmp_path):
    save_evaluation(evaluation, tmp_path)
    again = load_evaluation(tmp_path)
    assert render_group_report(again, {}) == render_group_report(evaluation, {})
    assert metrics_table(again).equals(metrics_table(evaluation))
    first = write_maps(evaluation, tmp_path / "a")
    second = write_maps(again, tmp_path / "b")
    assert [nib.load(p).get_fdata().sum() for p in first] == [
        nib.load(p).get_fdata().sum() for p in second
    ]


def test_values_of_every_plain_kind(evaluation, tmp_path):
    settings = {
        "text": "µ </script>",
        "number": np.float32(0.5),
        "nan": float("nan"),
        "infinite": -float("inf"),
        "many": [1, (2, None), {"deep": True}],
        ("a", 1): Path("x/y"),
        "array": np.arange(3, dtype=np.int16),
    }
    save_evaluation(replace(evaluation, settings=settings), tmp_path)
    again = load_evaluation(tmp_path).settings
    assert same(again, settings | {"number": 0.5})


def test_maps_are_kept_in_single_precision(evaluation, tmp_path):
    large = np.random.default_rng(0).normal(size=(3, 20_000))
    save_evaluation(replace(evaluation, maps={"ours": large}), tmp_path)
    again = load_evaluation(tmp_path).maps["ours"]
    assert again.dtype == np.float32
    assert np.allclose(again, large, rtol=1e-6)


@dataclass(frozen=True)
class Foreign:
    """A dataclass that the annotations do not name."""

    value: int = 0


@pytest.mark.parametrize("value", [Foreign(), object(), np.array([object()])])
def test_what_cannot_be_saved_is_named_and_leaves_the_old_file(evaluation, tmp_path, value):
    save_evaluation(evaluation, tmp_path)
    before = (tmp_path / FILE_NAME).read_bytes()
    with pytest.raises(TypeError, match=r"evaluation\.settings\['it'\]"):
        save_evaluation(replace(evaluation, settings={"it": value}), tmp_path)
    assert (tmp_path / FILE_NAME).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def test_nothing_saved_is_said(tmp_path):
    with pytest.raises(DataError, match=r"does not exist.*without --reports-only"):
        load_evaluation(tmp_path)


def rewrite(path, change):
    """Change or replace the tree of a saved evaluation, checksums and all."""
    with np.load(path) as stored:
        parts = dict(stored)
    document = json.loads(bytes(parts["tree"]))
    changed = change(document)
    text = json.dumps(document if changed is None else changed)
    parts["tree"] = np.frombuffer(text.encode(), dtype=np.uint8)
    np.savez(path, **parts)


def test_another_format_is_said(evaluation, tmp_path):
    save_evaluation(evaluation, tmp_path)
    rewrite(tmp_path / FILE_NAME, lambda d: d.update(format=99))
    with pytest.raises(DataError, match="format 99"):
        load_evaluation(tmp_path)


def test_fields_that_came_or_went_are_said(evaluation, tmp_path):
    save_evaluation(evaluation, tmp_path)
    rewrite(tmp_path / FILE_NAME, lambda d: d["evaluation"]["object"][1].__delitem__("nyquist"))
    with pytest.raises(DataError, match=r"another version.*Evaluation differs in nyquist"):
        load_evaluation(tmp_path)
    save_evaluation(evaluation, tmp_path)
    rewrite(
        tmp_path / FILE_NAME,
        lambda d: d["evaluation"]["object"][1].update(nyquist={"object": ["Gone", {}]}),
    )
    with pytest.raises(DataError, match=r"another version.*holds a Gone"):
        load_evaluation(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: [],
        lambda d: {"format": 1},
        lambda d: d.update(evaluation={"array": 10_000}),
        lambda d: d.update(evaluation={"pickle": "x"}),
        lambda d: d.update(evaluation={}),
        lambda d: d.update(evaluation=3),
        lambda d: d.update(evaluation={"mapping": [[{"list": []}, 1]]}),
    ],
)
def test_a_tree_that_makes_no_sense_is_refused(evaluation, tmp_path, change):
    save_evaluation(evaluation, tmp_path)
    rewrite(tmp_path / FILE_NAME, change)
    with pytest.raises(DataError, match="without --reports-only"):
        load_evaluation(tmp_path)


def test_damage_is_noticed_wherever_it_lies(evaluation, tmp_path):
    save_evaluation(evaluation, tmp_path)
    path = tmp_path / FILE_NAME
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(whole), 12):
        spoilt = bytearray(whole)
        spoilt[place : place + 64] = rng.bytes(len(spoilt[place : place + 64]))
        path.write_bytes(bytes(spoilt))
        with pytest.raises(DataError, match="damaged"):
            load_evaluation(tmp_path)
    for size in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match="damaged"):
            load_evaluation(tmp_path)


def test_a_pickle_is_not_executed(evaluation, tmp_path):
    save_evaluation(evaluation, tmp_path)
    path = tmp_path / FILE_NAME
    with np.load(path) as stored:
        parts = dict(stored)
    parts["array0"] = np.array([Path("x")], dtype=object)
    np.savez(path, **parts)
    with pytest.raises(DataError, match="damaged"):
        load_evaluation(tmp_path)


def test_only_the_dataclasses_of_an_evaluation_are_made():
    names = set(saved._dataclasses_of(saved.Evaluation))
    assert {"Evaluation", "Estimate", "Conditions", "TimeCourse", "Networks", "CopyAudit"} <= names
    assert "Run" not in names  # records are left out
