"""Contrasts from JSON: both forms, what is left out, and hostile files."""

from __future__ import annotations

import json
import logging

import pytest

from fmrisynth.errors import DataError, NoInputError
from fmrisynth.evaluation.cohort.contrasts import Contrast, read_contrasts


@pytest.fixture
def read(tmp_path):
    def read(content):
        path = tmp_path / "model.json"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content))
        return read_contrasts(path)

    return read


def node(**fields):
    return {"Level": "Run", "Name": "run", "Model": {"X": ["trial_type.fear", 1]}} | fields


def model(*nodes, task=("faces",)):
    given = {"Input": {"task": list(task)}} if task else {}
    return {"Name": "m", "BIDSModelVersion": "1.0.0", **given, "Nodes": list(nodes)}


def weighted(name="a > b", conditions=("trial_type.fear", "happy"), weights=(1, -1), test="t"):
    return {"Name": name, "ConditionList": list(conditions), "Weights": list(weights), "Test": test}


def test_own_form_keeps_order_and_weights(read):
    found = read(
        {
            "task-faces": {"b": {"fear": 1, "happy": "-1/2"}, "a": {"trial_type.fear": 2.5}},
            "hands": {"b": {"left": 1}},
        }
    )
    assert [(c.task, c.name) for c in found] == [("faces", "b"), ("faces", "a"), ("hands", "b")]
    assert found[0].weights == {"fear": 1.0, "happy": -0.5}
    assert found[1].weights == {"fear": 2.5}


def test_stats_model_gives_explicit_and_dummy_contrasts(read):
    run = node(
        Contrasts=[weighted(weights=["1/3", -1]), weighted("fear", ["fear"], [[2]])],
        DummyContrasts={"Test": "t"},
    )
    found = {c.name: c for c in read(model(run))}
    assert found["a > b"].weights == {"fear": pytest.approx(1 / 3), "happy": -1.0}
    assert found["fear"].weights == {"fear": 2.0}  # the explicit one replaces the dummy
    assert {c.task for c in found.values()} == {"faces"}


@pytest.mark.parametrize("key", ["Contrasts", "Conditions"])
def test_dummies_may_be_listed(read, key):
    found = read(model(node(DummyContrasts={"Test": "t", key: ["trial_type.happy", "fear"]})))
    assert [(c.name, dict(c.weights)) for c in found] == [
        ("happy", {"happy": 1.0}),
        ("fear", {"fear": 1.0}),
    ]


def test_a_model_of_two_tasks_gives_each_its_contrast(read):
    found = read(model(node(Contrasts=[weighted()]), task=("faces", "task-hands")))
    assert [(c.task, c.name) for c in found] == [("faces", "a > b"), ("hands", "a > b")]


def test_two_nodes_may_share_a_contrast(read):
    run = node(Contrasts=[weighted()])
    assert len(read(model(run, run))) == 1


def test_older_models_call_nodes_steps(read):
    document = model(node(Contrasts=[weighted()]))
    document["Steps"] = document.pop("Nodes")
    document["Input"] = {"Task": "faces"}
    assert read(document)[0].task == "faces"


@pytest.mark.parametrize(
    ("left_out", "said"),
    [
        (node(Contrasts=[weighted("f", test="F")]), "only t contrasts"),
        (node(Contrasts=[weighted("f", weights=([1, 0], [0, 1]))]), "one row of weights"),
        (node(DummyContrasts={"Test": "F"}), "only t contrasts"),
        (node(DummyContrasts={"Test": "t", "Contrasts": ["trial_type.*"]}), "is a pattern"),
        (node(Contrasts=[weighted("i", [1], [1])]), "intercept"),
        (node(Level="Subject", Contrasts=[weighted("s")]), "averaged over runs"),
        (node(Level="Dataset", DummyContrasts={"Test": "t"}), "averaged over runs"),
    ],
)
def test_what_cannot_be_expressed_is_named_and_left_out(read, caplog, left_out, said):
    caplog.set_level(logging.WARNING)
    found = read(model(node(Contrasts=[weighted("kept")]), left_out))
    assert [c.name for c in found] == ["kept"]
    assert said in caplog.text
    with pytest.raises(DataError, match="no contrast that can be used"):
        read(model(left_out))


HOSTILE = {
    "blank": (b"", "JSON"),
    "not JSON": (b"{faces: ", "JSON"),
    "binary": (b"\xff\xfe\x00\x01", "UTF-8"),
    "deep": (b"[" * 100_000, "JSON"),
    "a list": ([], "a list"),
    "a number": ("3", "a number"),
    "empty object": ({}, "no contrast"),
    "empty task": ({"faces": {}}, "no contrast"),
    "task is text": ({"faces": "fear"}, "contrasts by name"),
    "weights are a list": ({"faces": {"a": ["fear"]}}, "weight for each trial type"),
    "no weights": ({"faces": {"a": {}}}, "no weight"),
    "zero weights": ({"faces": {"a": {"fear": 0}}}, "only weights of 0"),
    "weight is text": ({"faces": {"a": {"fear": "one"}}}, "'one'"),
    "weight is true": ({"faces": {"a": {"fear": True}}}, "finite number"),
    "weight is null": ({"faces": {"a": {"fear": None}}}, "finite number"),
    "weight is NaN": ('{"faces": {"a": {"fear": NaN}}}', "finite number"),
    "weight is infinite": ('{"faces": {"a": {"fear": 1e999}}}', "finite number"),
    "weight is huge": ('{"faces": {"a": {"fear": 1%s}}}' % ("0" * 400), "finite number"),
    "weight divides by zero": ({"faces": {"a": {"fear": "1/0"}}}, "finite number"),
    "repeated contrast": ('{"faces": {"a": {"x": 1}, "a": {"y": 1}}}', "stands twice"),
    "repeated task": ('{"faces": {"a": {"x": 1}}, "faces": {}}', "stands twice"),
    "repeated under another spelling": (
        {"faces": {"a": {"x": 1}}, "task-faces": {"a": {"y": 1}}},
        "two different contrasts",
    ),
    "two weights of one": ({"faces": {"a": {"x": 1, "trial_type.x": 2}}}, "two weights"),
    "blank name": ({"faces": {" ": {"x": 1}}}, "name is expected"),
    "line break": ({"faces": {"a\nb": {"x": 1}}}, "line break"),
    "nodes are no list": ({"Nodes": {}}, "list of nodes"),
    "a node is no object": (model(3), "node 1"),
    "no task": (model(node(Contrasts=[weighted()]), task=()), "Input"),
    "task is a number": (model(node(Contrasts=[weighted()]), task=(3,)), "Input.task"),
    "contrasts are no list": (model(node(Contrasts={"a": 1})), "Contrasts is"),
    "a contrast is no object": (model(node(Contrasts=["a"])), "contrast 1"),
    "no name": (model(node(Contrasts=[{"Test": "t"}])), "name is expected"),
    "no conditions": (model(node(Contrasts=[{"Name": "a", "Test": "t"}])), "ConditionList"),
    "too few weights": (model(node(Contrasts=[weighted(weights=(1,))])), "1 Weights for 2"),
    "named twice": (
        model(node(Contrasts=[weighted(), weighted(weights=(2, 1))])),
        "two contrasts of this name",
    ),
    "two nodes differ": (
        model(node(Contrasts=[weighted()]), node(Contrasts=[weighted(weights=(2, 1))])),
        "two different contrasts",
    ),
    "condition is a list": (model(node(Contrasts=[weighted(conditions=[[1], "b"])])), "a list"),
    "dummies are no list": (model(node(DummyContrasts={"Contrasts": "fear"})), "Contrasts is"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused_by_name(read, tmp_path, case):
    content, said = HOSTILE[case]
    with pytest.raises(DataError) as caught:
        read(content)
    assert said in str(caught.value)
    assert str(tmp_path / "model.json") in str(caught.value)


def test_a_missing_file_is_its_own_error(tmp_path):
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(NoInputError, match="--contrasts"):
            read_contrasts(path)


def test_a_byte_order_mark_is_understood(read):
    content = b"\xef\xbb\xbf" + json.dumps({"faces": {"a": {"fear": 1}}}).encode()
    assert read(content) == (Contrast("a", "faces", {"fear": 1.0}),)
