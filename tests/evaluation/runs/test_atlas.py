"""The atlas: read from a TemplateFlow home, and a quick None where it cannot be had."""

from __future__ import annotations

import logging
import sys
import time
import types
import urllib.request

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner

from fmrisynth.evaluation.runs import atlas
from fmrisynth.evaluation.runs.atlas import load_atlas, save_atlases

SPACE = "MNI152NLin2009cAsym"
OTHER_SPACE = "MNI152NLin6Asym"


def fill(home, *, labels=(1, 2, 3), names=(1, 2), table=None, space=SPACE):
    folder = home / f"tpl-{space}"
    folder.mkdir(parents=True)
    volume = np.zeros((4, 5, 6))
    volume.flat[: len(labels)] = labels
    tail = "atlas-Schaefer2018_desc-100Parcels7Networks_dseg"
    nib.save(
        nib.Nifti1Image(volume, np.diag([2, 2, 2, 1])),
        folder / f"tpl-{space}_res-02_{tail}.nii.gz",
    )
    rows = "index\tname\tcolor\n" + "".join(f"{n}\tregion {n}\t#000000\n" for n in names)
    (folder / f"tpl-{space}_{tail}.tsv").write_text(rows if table is None else table)
    return folder


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TEMPLATEFLOW_AUTOUPDATE", raising=False)
    return tmp_path / "home"


@pytest.fixture
def no_network(monkeypatch):
    asked = []

    def refuse(request, **_):
        asked.append(request.full_url)
        raise OSError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return asked


def test_files_in_the_home_are_used_without_asking_the_network(home, no_network):
    fill(home)
    found = load_atlas(SPACE)
    assert found.labels == {1: "region 1", 2: "region 2", 3: "parcel 3"}
    assert found.image.shape == (4, 5, 6)
    assert np.allclose(found.image.affine, np.diag([2, 2, 2, 1]))
    assert "Schaefer2018" in found.name
    assert not no_network


@pytest.mark.parametrize("space", [None, "T1w", "MNI152NLin2006Asym"])
def test_other_spaces_have_none_and_nobody_is_asked(home, no_network, space, caplog):
    caplog.set_level(logging.INFO)
    assert load_atlas(space) is None
    assert "computed from the data" in caplog.text
    assert not no_network


def test_without_network_the_answer_is_none_and_a_notice(home, no_network, caplog):
    assert load_atlas(SPACE) is None
    assert no_network == [
        f"https://templateflow.s3.amazonaws.com/tpl-{SPACE}/tpl-{SPACE}_res-02_"
        "atlas-Schaefer2018_desc-100Parcels7Networks_dseg.nii.gz"
    ]
    assert "no network" in caplog.text
    assert "TEMPLATEFLOW_HOME" in caplog.text
    assert not home.exists()  # the client, which fills it with stubs, was not even imported


def test_the_network_is_not_asked_where_that_is_switched_off(home, monkeypatch, caplog):
    monkeypatch.setenv("TEMPLATEFLOW_AUTOUPDATE", "0")
    asked = []
    monkeypatch.setattr(urllib.request, "urlopen", lambda *words, **_: asked.append(words))
    assert load_atlas("MNI152NLin2009cAsym") is None
    assert not asked
    assert "TEMPLATEFLOW_AUTOUPDATE is off" in caplog.text


def test_a_network_that_swallows_everything_costs_seconds(home, monkeypatch, caplog):
    monkeypatch.setattr(atlas, "_PROBE_SECONDS", 0.2)
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: time.sleep(30))
    start = time.monotonic()
    assert load_atlas(SPACE) is None
    assert time.monotonic() - start < 5
    assert "no answer" in caplog.text


def test_empty_stubs_of_a_fresh_home_do_not_count(home, no_network):
    for path in fill(home).iterdir():
        path.write_bytes(b"")
    assert load_atlas(SPACE) is None
    assert len(no_network) == 1


@pytest.mark.parametrize(
    "damage",
    [{"labels": (0,)}, {"table": "index\tcolor\n1\t#0\n"}, {"table": "index\tname\nx\ty\n"}],
)
def test_damaged_files_are_a_notice(home, no_network, caplog, damage):
    fill(home, **damage)
    assert load_atlas(SPACE) is None
    assert "cannot be had" in caplog.text


def test_a_truncated_image_is_a_notice(home, no_network, caplog):
    image = next(fill(home).glob("*.nii.gz"))
    image.write_bytes(image.read_bytes()[:60])
    assert load_atlas(SPACE) is None
    assert "cannot be had" in caplog.text


@pytest.fixture
def client(home, monkeypatch):
    """A server that answers, and a client that fills the home; gives what was asked for."""
    asked = []

    class Answer:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return False

    def get(space, **query):
        folder = home / f"tpl-{space}"
        if not folder.exists():
            fill(home, space=space)
            (folder / f"tpl-{space}_res-01_T1w.nii.gz").touch()  # one of its many stubs
        asked.append((space, query["extension"], query["resolution"]))
        return next(folder.glob(f"*dseg{query['extension']}"))

    module = types.ModuleType("templateflow")
    module.api = types.SimpleNamespace(get=get)
    monkeypatch.setitem(sys.modules, "templateflow", module)
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: Answer())
    return asked


def test_the_client_fetches_what_the_server_has(client):
    assert load_atlas(SPACE).labels[1] == "region 1"
    assert client == [(SPACE, ".nii.gz", 2), (SPACE, ".tsv", None)]


# The same, in advance


def files_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))


def test_what_was_saved_is_a_home_without_stubs(client, tmp_path, monkeypatch):
    assert save_atlases(tmp_path / "new" / "saved") == {}
    assert [(space, extension) for space, extension, _ in client] == [
        (space, extension) for space in (SPACE, OTHER_SPACE) for extension in (".nii.gz", ".tsv")
    ]
    saved = files_below(tmp_path / "new" / "saved")
    assert len(saved) == 4
    assert all("_dseg." in name for name in saved)
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path / "new" / "saved"))
    monkeypatch.setenv("TEMPLATEFLOW_AUTOUPDATE", "0")
    for space in (SPACE, OTHER_SPACE):
        assert load_atlas(space).labels[2] == "region 2"


def test_saving_takes_what_the_home_has(home, no_network, tmp_path):
    fill(home)
    failures = save_atlases(tmp_path / "saved")
    assert list(failures) == [OTHER_SPACE]
    assert "no network" in failures[OTHER_SPACE]
    assert len(files_below(tmp_path / "saved")) == 2


def test_damaged_files_are_not_saved(home, no_network, tmp_path):
    for space in (SPACE, OTHER_SPACE):
        fill(home, space=space, labels=(0,))
    failures = save_atlases(tmp_path / "saved")
    assert list(failures) == [SPACE, OTHER_SPACE]
    assert "no volume of labels" in failures[SPACE]
    assert files_below(tmp_path / "saved") == []


def test_the_command_says_what_is_there(client, tmp_path):
    done = CliRunner().invoke(atlas.main, [str(tmp_path / "saved")])
    assert done.exit_code == 0, done.output
    assert done.stdout.count(f"in {tmp_path / 'saved'}") == 2
    assert not done.stderr


def test_the_command_without_network_says_so_and_leaves_an_empty_folder(home, no_network, tmp_path):
    done = CliRunner().invoke(atlas.main, [str(tmp_path / "saved")])
    assert done.exit_code == 69
    assert done.stderr.count("not there (OSError: no network)") == 2
    assert "computed from the data" in done.stderr
    assert list((tmp_path / "saved").iterdir()) == []


def test_a_place_that_cannot_be_written_to_is_another_exit_code(client, tmp_path):
    (tmp_path / "file").touch()
    done = CliRunner().invoke(atlas.main, [str(tmp_path / "file" / "saved")])
    assert done.exit_code == 73
    assert "cannot write" in done.stderr
