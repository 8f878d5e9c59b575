"""--config-file: what it may hold, what wins, and what is said of mistakes."""

import re

import pytest
from support.command_line import parse

from fmrisynth.cli.main import command

THREE = ("in", "out", "participant")


@pytest.fixture
def config(tmp_path):
    """Write a configuration file."""

    def write(text):
        path = tmp_path / "study.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_every_kind_of_option(config):
    path = config(
        """
        participant-label = ["01", "sub-02"]
        session_id = "a"
        n-samples = 3
        guidance = 1.5
        max-time = "01:00:00"
        sampler = "ddim"
        train-only = true
        verbose = 2
        mem = "800M"
        set = ["a=1", "b.c=x=y"]
        derivatives = ["prep=p", "q/fmriprep"]
        work_dir = "w"
        """
    )
    found = parse(*THREE, "--config-file", path)
    assert found["participants"] == ("01", "sub-02")
    assert found["sessions"] == ("a",)
    assert (found["n_samples"], found["guidance"], found["verbose"]) == (3, 1.5, 2)
    assert (found["max_seconds"], found["sampler"], found["memory"]) == (3600, "ddim", 0.8)
    assert found["train_only"] is True
    assert found["assignments"] == {"a": "1", "b.c": "x=y"}
    assert {k: str(v) for k, v in found["derivatives"].items()} == {
        "prep": "p",
        "fmriprep": "q/fmriprep",
    }
    assert str(found["work_dir"]) == "w"


def test_the_file_says_the_same_as_the_words(config):
    """Each option that takes one of these values, by file and by word."""
    values = {"--max-steps": 3, "--random-seed": 7, "--device": "cpu", "--space": "MNI", "-w": "d"}
    words = [str(word) for pair in values.items() for word in pair]
    names = {**{n.lstrip("-"): v for n, v in values.items()}, "work-dir": "d"}
    del names["w"]
    text = "\n".join(f"{n} = {v!r}" for n, v in names.items())
    by_file = parse(*THREE, "--config-file", config(text))
    by_word = parse(*THREE, *words)
    del by_file["config_file"], by_word["config_file"]
    assert by_file == by_word


def test_the_command_line_wins(config):
    path = config(
        'participant-label = ["01"]\nn-samples = 3\nderivatives = ["a"]\n[set]\nx = 1\ny = 2\n'
    )
    for words in (("--config-file", path, *THREE), (*THREE, "--config_file", path)):
        found = parse(
            *words, "--participant-label", "02", "03", "--n-samples", 1, "-d", "b", "--set", "y=3"
        )
        assert found["participants"] == ("02", "03")
        assert found["n_samples"] == 1
        assert list(found["derivatives"]) == ["b"]
        assert found["assignments"] == {"x": "1", "y": "3"}  # a setting for a setting


def test_tables(config):
    path = config(
        '[set]\n"denoiser.noise" = "white"\nheld_out_share = 0.2\n'
        '[set.response]\nkind = "none"\n'
        '[derivatives]\nprep = "p"\n[compare]\nother = "o"\n'
    )
    found = parse(*THREE, "--config-file", path)
    assert found["assignments"] == {
        "denoiser.noise": "white",
        "held_out_share": "0.2",
        "response.kind": "none",
    }
    assert {k: str(v) for k, v in found["derivatives"].items()} == {"prep": "p"}
    assert {k: str(v) for k, v in found["compare"].items()} == {"other": "o"}


def test_an_empty_file_changes_nothing(config):
    found = parse(*THREE, "--config-file", config("# nothing\n"))
    expected = parse(*THREE)
    del found["config_file"], expected["config_file"]
    assert found == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('participants-label = "01"', r"no option 'participants-label'.*participant-label"),
        ("n_sample = 2", r"no option 'n_sample'; did you mean n-samples"),
        ("qqqqqq = 1", r"no option 'qqqqqq'; expected one of .*work-dir"),
        ('bids_dir = "/data"', "no option 'bids_dir'"),
        ('config-file = "other.toml"', "no option 'config-file'"),
        ("help = true", "no option 'help'"),
        ("[participant]\nn-samples = 2", "no option 'participant'"),
        ("n-samples = ", "not TOML"),
        ("n-samples = 2\nn-samples = 3", "not TOML"),
        ("n-samples = 2\nn_samples = 3", "gives --n-samples twice"),
        ('n-samples = "many"', "'many' is not a valid integer"),
        ("n-samples = 0", "0 is not in the range"),
        ("n-samples = [1, 2]", r"n-samples is \[1, 2\]; expected one word or number"),
        ("n-samples = true", "expected one word or number"),
        ("participant-label = [true]", "expected a list of words or numbers"),
        ("participant-label = {a = 1}", "expected a list of words or numbers"),
        ('train-only = "yes"', "'yes'; expected true or false"),
        ('sampler = "magic"', "'magic' is not one of"),
        ('set = ["a"]', "'a' has no '='"),
        ('max-time = "soon"', "'soon' is not a time"),
        ("mem = 64000", "write 64000M"),
    ],
)
def test_mistakes_are_named_with_their_file(call, config, tmp_path, text, message):
    path = config(text)
    code, _, err = call(tmp_path / "in", tmp_path / "out", "participant", "--config-file", path)
    assert code == 64
    flat = " ".join(err.split())
    assert str(path) in flat
    assert re.search(message, flat), flat
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_no_text(call, config, tmp_path):
    path = config("")
    path.write_bytes(b"\xff\xfe\x00")
    code, _, err = call(tmp_path / "in", tmp_path / "out", "participant", "--config-file", path)
    assert (code, "not TOML" in err) == (64, True)
    code, _, err = call(tmp_path / "in", tmp_path / "out", "participant", "--config-file", tmp_path)
    assert code == 64
    assert "cannot be read" in err


def test_settings_of_the_file_reach_the_model(call, config, tiny_bids, tmp_path):
    path = config('[set]\ncolour = "red"\n')
    code, _, err = call(tiny_bids, tmp_path / "out", "participant", "--config-file", path)
    assert code == 64
    assert "'colour'" in err


def test_every_option_can_stand_in_the_file(config, tmp_path):
    """But for those that have no value, and the file itself."""
    without = {"config_file"}
    (tmp_path / "filter.json").write_text('{"bold": {"run": 1}}')
    for option in command.params:
        name = next((n[2:] for n in option.opts if n.startswith("--")), None)
        if name is None or option.name in without or not option.expose_value:
            continue
        values = {
            "baselines": '"fmrisim"',
            "noise": '"networks"',
            "bids-filter-file": f'"{tmp_path / "filter.json"}"',
            "preset": '"small"',
            "mem": "4",
            "max-time": '"00:10:00"',
            "n-samples": "2",
            "random-seed": "2",
            "set": '["a=1"]',
        }
        kind = type(option.type).__name__
        guess = "true" if option.is_flag else "1" if "Range" in kind or option.count else '"x"'
        if kind == "Choice":
            guess = f'"{option.type.choices[-1]}"'
        found = parse(*THREE, "--config-file", config(f"{name} = {values.get(name, guess)}"))
        assert found[option.name] != parse(*THREE)[option.name], name
