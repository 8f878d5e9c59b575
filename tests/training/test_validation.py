"""Who validates the network."""

import pytest

from fmrisynth.config.diffusion import DiffusionTraining
from fmrisynth.training.validation import choose_validation


@pytest.mark.parametrize(
    ("n", "share", "expected"),
    [(30, 0.2, 6), (12, 0.2, 4), (12, 0.5, 6), (9, 0.2, 3), (3, 0.01, 1), (2, 0.2, 1)],
)
def test_validation_participants_are_a_seeded_share_of_at_least_four_or_a_third(n, share, expected):
    labels = [f"{i:02d}" for i in range(n)]
    training = DiffusionTraining(validation_share=share)
    chosen = [choose_validation([*labels, *labels[::-1]], training, seed) for seed in range(6)]
    for learners, watched in chosen:
        assert sorted(learners + watched) == labels
        assert len(watched) == expected
    assert chosen[0] == choose_validation(labels, training, 0)
    assert len({tuple(watched) for _, watched in chosen}) > 1


def test_nearly_all_may_validate_but_one_learns():
    learners, watched = choose_validation(
        ["a", "b", "c"], DiffusionTraining(validation_share=0.9), 0
    )
    assert (len(learners), len(watched)) == (1, 2)


@pytest.mark.parametrize(("labels", "share"), [(["01"], 0.5), (["01", "02", "03"], 0.0)])
def test_nobody_validates_where_all_are_needed_to_learn(labels, share):
    training = DiffusionTraining(validation_share=share)
    assert choose_validation(labels, training, 0) == (labels, [])
