"""Work is spread over processes, in order."""

from functools import partial
from operator import add, contains

import pytest
import torch

from fmrisynth.runtime.workers import spread


@pytest.mark.parametrize("nprocs", [0, 1, 2])
def test_results_come_in_order(nprocs):
    with spread(nprocs) as each:
        assert list(each(partial(add, 1), range(5))) == [1, 2, 3, 4, 5]
        assert list(each(str, range(3))) == ["0", "1", "2"]


def test_a_function_may_hold_tensors():
    with spread(2) as each:
        assert list(each(partial(contains, torch.ones(3)), [1.0, 2.0])) == [True, False]


def test_errors_come_back():
    with spread(2) as each, pytest.raises(ValueError, match="invalid literal"):
        list(each(int, ["1", "x"]))
