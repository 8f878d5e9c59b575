"""Tests of the split: each participant has one role, and the seed chooses it."""

from hypothesis import given
from hypothesis import strategies as st

from fmrisynth.preprocess.splits import choose_split


@given(
    st.sets(st.text("abc019", min_size=1, max_size=4), min_size=1, max_size=30),
    st.floats(0, 0.9),
    st.integers(0, 10**6),
)
def test_every_participant_has_one_role(labels, share, seed):
    found = choose_split([*labels, *labels], share, seed)
    assert set(found.training) | set(found.held_out) == labels
    assert not set(found.training) & set(found.held_out)
    assert found.training
    assert len(found.training) + len(found.held_out) == len(labels)
    assert bool(found.held_out) == (len(labels) > 1)
    assert list(found.training) == sorted(found.training)
    assert found == choose_split(sorted(labels, reverse=True), share, seed)
    for label in labels:
        expected = "training" if label in found.training else "held_out"
        assert found.role(label) == expected
    assert found.role("nobody") == "unseen"


def test_the_split_follows_its_share_and_seed():
    labels = [f"{i:02d}" for i in range(20)]
    assert len(choose_split(labels, 0.25, 0).held_out) == 5
    assert len({choose_split(labels, 0.25, seed).held_out for seed in range(8)}) > 4


def test_a_dataset_is_split_the_same_beside_others():
    own, others = [f"{i:02d}" for i in range(12)], [f"there:{i:02d}" for i in range(8)]
    alone, together = choose_split(own, 0.25, 3), choose_split([*others, *own], 0.25, 3)
    assert together.within("") == alone
    there = together.within("there")
    assert there == choose_split([f"{i:02d}" for i in range(8)], 0.25, 3)
    assert together.role(f"there:{there.held_out[0]}") == "held_out"
    assert together.within(None).role("01") == "unseen"
    assert together.within("nowhere") == together.within(None)
