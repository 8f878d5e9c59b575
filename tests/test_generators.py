"""What stands in the group level's table."""

import pytest

from fmrisynth.baselines import BASELINES
from fmrisynth.errors import UsageError
from fmrisynth.generators import baseline_names


def test_names_of_baselines():
    assert baseline_names(["group-glm"]) == ("group-glm",)
    assert baseline_names(["none"]) == ()
    assert baseline_names(["fmrisim", "group-glm", "fmrisim"]) == ("fmrisim", "group-glm")


def test_names_that_do_not_exist_list_those_that_do():
    with pytest.raises(UsageError) as caught:
        baseline_names(["group_glm"])
    for name in (*BASELINES, "none", "group_glm"):
        assert name in str(caught.value)


def test_none_stands_alone():
    with pytest.raises(UsageError, match="no other baseline"):
        baseline_names(["none", "group-glm"])
