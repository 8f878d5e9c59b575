"""Adding a generator or a contrast to a comparison changes no other number."""

from __future__ import annotations

import pytest
from support.evaluation_cohort import HELD_OUT, TRAINING, Recipe, write_cohort

from fmrisynth.evaluation.cohort.contrasts import Contrast
from fmrisynth.evaluation.cohort.roles import REAL
from fmrisynth.evaluation.evaluate import evaluate
from fmrisynth.evaluation.export import write_metrics

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The same comparison twice: alone, and with another generator and a contrast."""
    root = tmp_path_factory.mktemp("independence")
    held_out = write_cohort(root / "real", HELD_OUT[:3])
    training = write_cohort(root / "real", TRAINING[:4])
    synthetic = write_cohort(root / "one", HELD_OUT[:3], Recipe(noise_seed=1))
    other = write_cohort(root / "two", HELD_OUT[:3], Recipe(noise_seed=2, individual=0.0))
    contrasts = [
        Contrast("fear > happy", "faces", {"fear": 1, "happy": -1}),
        Contrast("left > right", "hands", {"left": 1, "right": -1}),
    ]
    options = {"work_dir": root / "work", "progress": False}
    alone = evaluate(held_out, training, {"one": synthetic}, **options)
    first = {"two": other, "one": synthetic}
    more = evaluate(held_out, training, first, contrasts=contrasts, **options)
    return alone, more


def lines(evaluation, folder):
    """Lines of metrics.tsv by metric and generator."""
    write_metrics(evaluation, folder / "metrics.tsv")
    text = (folder / "metrics.tsv").read_text(encoding="utf-8").splitlines()[1:]
    return {tuple(line.split("\t")[:2]): line for line in text}


def test_every_other_line_of_the_table_is_byte_equal(results, tmp_path):
    before, after = (
        lines(result, tmp_path / name) for name, result in zip("ab", results, strict=True)
    )
    assert len(before) > 150
    assert {key: after.get(key) for key in before} == before
    added = {key for key in after if key not in before}
    assert {source for _, source in added} == {"one", "two", REAL}
    assert all("_contrast" in metric for metric, source in added if source != "two")


def test_references_to_real_data_are_the_same_beside_every_generator(results):
    _, more = results
    # Its ceiling is the generator's own: the likeness of its runs to held-out ones.
    own = ("nearest_training",)
    compared = 0
    for name, estimate in more.estimates["one"].items():
        other = more.estimates["two"][name]
        if estimate.ceiling == estimate.ceiling and not name.startswith(own):
            assert estimate.ceiling == other.ceiling, name
            compared += 1
    assert compared > 60
    assert more.estimates["one"]["decoding_real[1]"] == more.estimates["two"]["decoding_real[1]"]
