"""Events are read from odd but usable tables; others are refused with a reason."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fmrisynth.bids.events import events_table_bytes, read_events
from fmrisynth.errors import DataError

HEADER = "onset\tduration\ttrial_type\n"


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "sub-01_task-x_events.tsv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (HEADER + "5\t1\tb\n0\t2\ta\n", [(0, 2, "a"), (5, 1, "b")]),
        ("\ufeff" + HEADER + "0\t2\ta\n", [(0, 2, "a")]),
        (HEADER.replace("\n", "\r\n") + "0\t2\ta\r\n1\t2\tb\r\n", [(0, 2, "a"), (1, 2, "b")]),
        (HEADER + "0\tn/a\ta\n", [(0, 0, "a")]),
        (HEADER + "n/a\t1\ta\n3\t1\tn/a\n4\t1\tb\n", [(4, 1, "b")]),
        (HEADER + "0\t9\ta\n1\t9\tb\n", [(0, 9, "a"), (1, 9, "b")]),
        (HEADER + "-3\t1\ta\n-100\t2\tb\n", [(-3, 1, "a")]),
        ("onset\tduration\n1\t2\n", [(1, 2, "event")]),
        ("trial_type\tduration\tonset\na\t2\t1\n", [(1, 2, "a")]),
        (HEADER + "1\t2\ta\t\n\n", [(1, 2, "a")]),
        (HEADER + "1e1\t0.5\tü x\n", [(10, 0.5, "ü x")]),
    ],
)
def test_understood(tmp_path: Path, content: str, expected: list[tuple[float, float, str]]) -> None:
    frame = read_events(written(tmp_path, content), duration=60)
    rows = list(frame[["onset", "duration", "trial_type"]].itertuples(index=False, name=None))
    assert rows == expected
    assert frame["onset"].dtype == float


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("\n \n", "is blank"),
        ("onset,duration,trial_type\n1,2,a\n", "not separated by tabs"),
        ("onset duration\n1 2\n", "not separated by tabs"),
        ("onset\ttrial_type\n1\ta\n", "no column 'duration'; it has: onset, trial_type"),
        ("Onset\tduration\n1\t2\n", "no column 'onset'; it has: Onset"),
        ("onset\tonset\tduration\n1\t1\t2\n", "same name: onset"),
        (HEADER + "1\t2\n", "line 2: 2 cells where the header has 3"),
        (HEADER + "1\t2\ta\textra\n", "line 2: 4 cells"),
        (HEADER + "one\t2\ta\n", "line 2: the onset is 'one'"),
        (HEADER + "1,5\t2\ta\n", "the onset is '1,5'"),
        (HEADER + "1_0\t2\ta\n", "the onset is '1_0'"),
        (HEADER + "inf\t2\ta\n", "the onset is 'inf'"),
        (HEADER + "1\t-2\ta\n", "duration is negative"),
        (HEADER + "1\tlong\ta\n", "the duration is 'long'"),
        (HEADER, "no usable event"),
        (HEADER + "n/a\t1\ta\n", "no usable event"),
        (HEADER + "1\t2\ta\n60\t2\ta\n", r"1 of 2 events.*last onset is 60 s.*lasts 60 s"),
        (HEADER + "1000\t2000\ta\n30000\t2000\ta\n", "milliseconds"),
        (HEADER + "-500\t1\ta\n", "before the first volume"),
        (b"\xff\xfeo\x00n\x00", "not UTF-8"),
    ],
)
def test_refused(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_events(written(tmp_path, content), duration=60)


def test_modulation_is_kept_when_numeric(tmp_path: Path) -> None:
    table = "onset\tduration\tmodulation\n0\t1\t0.5\n2\t1\t{}\n"
    assert list(read_events(written(tmp_path, table.format("2")))["modulation"]) == [0.5, 2]
    assert "modulation" not in read_events(written(tmp_path, table.format("n/a")))


def test_valid_tables_are_copied_byte_for_byte(tmp_path: Path) -> None:
    content = (HEADER + "1.50\t2\ta\r\n").encode()
    assert events_table_bytes(written(tmp_path, content)) == content


def test_tables_the_validator_refuses_are_put_in_order(tmp_path: Path) -> None:
    path = written(tmp_path, "\ufefftrial_type\tonset\tduration\na\t1.50\tn/a\n")
    assert events_table_bytes(path) == b"onset\tduration\ttrial_type\n1.50\tn/a\ta\n"


cells = st.one_of(
    st.sampled_from(["n/a", "", "0", "1.5", "-3", "1e400", "nan", "inf", "٣", "0x10", "1_0"]),
    st.text(max_size=6),
)
tables = st.builds(
    lambda header, rows: "\n".join("\t".join(row) for row in [header, *rows]).encode("utf-8"),
    st.permutations(["onset", "duration", "trial_type", "modulation"]),
    st.lists(st.lists(cells, min_size=3, max_size=5), max_size=5),
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    content=st.one_of(
        st.binary(max_size=200),
        st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
        tables,
    )
)
def test_anything_gives_a_table_or_a_data_error(tmp_path: Path, content: bytes) -> None:
    path = written(tmp_path, content)
    message = None
    try:
        frame = read_events(path, duration=100.0)
    except DataError as error:
        message = str(error)
    if message is not None:
        assert str(path) in message
    else:
        assert isinstance(frame, pd.DataFrame)
        assert len(frame) > 0
        assert frame["onset"].is_monotonic_increasing
        assert (frame["duration"] >= 0).all()
        assert (frame["onset"] < 100).all()
        assert frame["trial_type"].str.len().gt(0).all()
    try:
        copied = events_table_bytes(path)
    except DataError:
        return
    assert copied.decode("utf-8").split()[:2] == ["onset", "duration"]


FOUR = HEADER + "1\t1\ta\n3\t1\tb\n5\t1\ta\n"


@pytest.mark.parametrize("late", ["10", "10.5", "19"])
def test_few_events_after_the_run_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, late: str
) -> None:
    path = written(tmp_path, f"{FOUR}{late}\t1\tb\n")
    assert list(read_events(path, duration=10.0)["onset"]) == [1, 3, 5]
    assert "1 of 4 events left out, they begin after the run has ended (10 s)" in caplog.text
    with pytest.raises(DataError, match="1 of 4 events begin beyond the end"):
        read_events(path, duration=10.0, most_beyond=0)


@pytest.mark.parametrize("late", ["5000\t1\tb\n", "11\t1\tb\n12\t1\ta\n"])
def test_events_of_another_run_are_refused(tmp_path: Path, late: str) -> None:
    with pytest.raises(DataError, match="Do the events belong to this run"):
        read_events(written(tmp_path, FOUR + late), duration=10.0)


def test_a_run_without_events_file_has_none() -> None:
    events = read_events(None, duration=10.0)
    assert list(events.columns) == ["onset", "duration", "trial_type"]
    assert events.empty
