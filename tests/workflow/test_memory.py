"""Memory limits the number of processes."""

import pytest
from support.tiny_model import make_run

from fmrisynth.errors import UsageError
from fmrisynth.workflow.memory import fitting_processes, run_gigabytes

# 1 GB of float32
LARGE = make_run(shape=(100, 100, 100), n_volumes=250)
SMALL = make_run(shape=(10, 10, 10), n_volumes=100)


def test_size_of_a_run():
    assert run_gigabytes(LARGE) == pytest.approx(1)


def test_no_limit():
    assert fitting_processes([LARGE], 64, None) == 64
    assert fitting_processes([], 64, 0.001) == 64


def test_memory_limits_the_processes():
    found = [fitting_processes([SMALL, LARGE], 8, memory) for memory in (11, 15, 30, 60, 1000)]
    assert found == sorted(found)
    assert found[0] == 1
    assert found[-1] == 8
    assert 1 < found[2] < 8
    assert fitting_processes([SMALL, LARGE], 1, 1000) == 1
    # all processes together stay within it, by the stated 0.4 GB + 6 runs each, 1 GB for this one
    assert all(n * 6.4 + 1 <= m or n == 1 for n, m in zip(found[:4], (11, 15, 30, 60), strict=True))


def test_simulators_need_more_of_it():
    found = [fitting_processes([LARGE], 8, memory, simulating=True) for memory in (22, 32, 64)]
    assert found == [2, 2, 6]
    assert all(n * 10.4 + 1 <= m for n, m in zip(found, (22, 32, 64), strict=True))


def test_small_runs_leave_room_for_more_processes():
    assert fitting_processes([SMALL], 8, 5) == 8
    assert fitting_processes([SMALL], 8, 2) == 2


def test_a_run_that_does_not_fit_is_named():
    for simulating, needed in ((False, "7.0"), (True, "11.0")):
        with pytest.raises(UsageError) as caught:
            fitting_processes([SMALL, LARGE], 8, 6.9, simulating=simulating)
        message = str(caught.value)
        for part in ("--mem 6.9 GB", "250 volumes of 100×100×100", f"{needed} GB", str(LARGE.bold)):
            assert part in message
        advised = float(message.split("Give --mem ")[1].split(",", maxsplit=1)[0])
        assert fitting_processes([SMALL, LARGE], 8, advised, simulating=simulating) == 1


def test_the_command_line_refuses_it(call, tiny_bids, tmp_path):
    code, _, err = call(tiny_bids, tmp_path / "out", "participant", "--mem", "500M")
    assert code == 64
    assert "--mem 0.5 GB is too little" in err
    assert not (tmp_path / "out" / "model").exists()


def test_without_semaphores_there_is_one_process(monkeypatch, caplog):
    """As where /dev/shm is missing."""

    def refuse(*_args):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("multiprocessing.context.BaseContext.Semaphore", refuse)
    assert fitting_processes([], 4, None) == 1
    assert "1 process instead of 4" in caplog.text
    assert fitting_processes([], 1, None) == 1
