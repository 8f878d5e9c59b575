"""Words of options become values, and what is no value is refused with what was expected."""

import pytest

from fmrisynth.baselines import BASELINES
from fmrisynth.workflow.words import read_baselines, read_noise


def test_names_of_baselines():
    assert read_baselines(["group-glm"]) == ("group-glm",)
    assert read_baselines(["none"]) == ()
    assert read_baselines(["fmrisim", "group-glm", "fmrisim"]) == ("fmrisim", "group-glm")


def test_names_that_do_not_exist_list_those_that_do():
    with pytest.raises(ValueError, match="group_glm") as caught:
        read_baselines(["group_glm"])
    for name in (*BASELINES, "none"):
        assert name in str(caught.value)


def test_none_stands_alone():
    with pytest.raises(ValueError, match="stands alone"):
        read_baselines(["none", "group-glm"])


def test_sources_of_noise():
    assert read_noise(["networks", "drift", "networks"]) == ("networks", "drift")
    assert read_noise(["none"]) == ("none",)
    for wrong in (["thunder"], ["none", "drift"], ["drift", "none"]):
        with pytest.raises(ValueError, match=r"is no source of noise|stands alone"):
            read_noise(wrong)
