"""Datasets are told apart by images, DOI and name; participants of several never collide."""

import json
import shutil
from dataclasses import replace

import pytest
from support.bids_tree import make_bids

from fmrisynth.bids.identity import (
    identify,
    label_runs,
    match_dataset,
    read_identities,
    state_sites,
)
from fmrisynth.bids.search import find_runs
from fmrisynth.bids.selection import Selection
from fmrisynth.config.codec import to_json
from fmrisynth.errors import ModelError


def describe(root, **more):
    content = {"Name": "study", "BIDSVersion": "1.10.0", **more}
    (root / "dataset_description.json").write_text(json.dumps(content))


@pytest.fixture
def known(tiny_bids):
    return identify(find_runs(tiny_bids))


@pytest.mark.parametrize("changed", ["nothing", "name", "files' times"])
def test_a_dataset_is_known_by_its_images(tiny_bids, tmp_path, known, changed):
    copy = shutil.copytree(tiny_bids, tmp_path / "elsewhere")
    if changed == "name":
        describe(copy, Name="renamed")
    if changed == "files' times":
        for path in copy.rglob("*.nii.gz"):
            path.touch()
    other = replace(known, name="b", images=("0" * 16,), title=known.title)
    assert match_dataset([other, known], identify(find_runs(copy))) == known


@pytest.mark.parametrize("task", ["motor", "wm"])
def test_a_part_of_a_dataset_is_known(tiny_bids, known, caplog, task):
    part = find_runs(tiny_bids, selection=Selection(tasks=(task,)))
    assert match_dataset([replace(known, name="b", images=()), known], identify(part)) == known
    assert not caplog.records


def test_a_dataset_that_was_preprocessed_anew_is_known_by_its_doi_or_name(tmp_path, caplog):
    roots = [make_bids(tmp_path / str(seed), seed=seed) for seed in range(4)]
    describe(roots[0], DatasetDOI="doi:10.1/x")
    describe(roots[1], DatasetDOI="doi:10.1/x", Name="renamed")
    describe(roots[2])
    describe(roots[3], Name="another", DatasetDOI="doi:10.1/y")
    known, by_doi, by_name, another = (identify(find_runs(root)) for root in roots)
    assert match_dataset([known], by_doi) == known
    assert not caplog.records
    assert match_dataset([known], by_name) == known
    assert "give it another Name" in caplog.text
    assert match_dataset([known], another) is None


def test_labels_of_a_further_dataset_are_none_that_a_dataset_can_have(tiny_bids):
    runs = find_runs(tiny_bids).runs
    labelled = label_runs(runs, "there")
    assert {run.participant for run in labelled} == {f"there:{r.participant}" for r in runs}
    assert [run.bold for run in labelled] == [run.bold for run in runs]
    assert not {run.label for run in labelled} & {run.label for run in runs}


def test_only_runs_that_state_no_site_get_that_of_their_dataset(tiny_bids, known):
    runs = find_runs(tiny_bids).runs
    runs = [replace(r, site=s) for r, s in zip(runs, ("unknown", "Kiel"), strict=False)]
    assert [run.site for run in state_sites(runs, known)] == [known.title, "Kiel"]
    assert state_sites(runs, replace(known, name="there"))[0].site == "there"


@pytest.mark.parametrize("wrong", ["text", [1], [{"name": "a"}], {"name": "a"}])
def test_identities_survive_json_and_nothing_else_is_read(known, wrong):
    content = json.loads(json.dumps({"datasets": [to_json(known)]}))
    assert read_identities(content, "config.json") == (known,)
    assert read_identities({}, "config.json") == ()
    with pytest.raises(ModelError, match=r"config\.json: datasets"):
        read_identities({"datasets": wrong}, "config.json")


def test_an_identity_holds_no_path(known, tiny_bids):
    assert str(tiny_bids.parent) not in json.dumps(to_json(known))
