"""The pages: complete, self-contained, escaped."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from evaluation_cohort import HELD_OUT, TRAINING, Recipe, write_cohort

from fmrisynth.evaluation.study import evaluate
from fmrisynth.reports import figures
from fmrisynth.reports.html import render_group_report, write_citation, write_group_report
from fmrisynth.reports.participant import write_participant_report
from fmrisynth.reports.slices import draw_carpet, draw_slices

NASTY = "<script>alert('$x_1$')</script>&"


class Page(HTMLParser):
    """Collects what a browser would fetch, the ids and links, and checks nesting."""

    VOID = frozenset(["meta", "img", "br", "hr", "link", "input", "path", "rect", "use"])

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched, self.ids, self.links, self.tags, self.open = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        self.fetched += [values[k] for k in ("src", "srcset", "data") if values.get(k)]
        if tag in ("link", "use", "image"):
            self.fetched += [v for k, v in attrs if k.endswith("href")]
        if tag == "a":
            self.links.append(values.get("href"))
        if "id" in values:
            self.ids.append(values["id"])

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    root = tmp_path_factory.mktemp("report")
    held_out = write_cohort(root / "real", HELD_OUT[:2])
    training = write_cohort(root / "real", TRAINING[:2])
    made = write_cohort(root / "made", HELD_OUT[:2], Recipe(noise_seed=1))
    return root, held_out, training, made


@pytest.fixture(scope="module")
def evaluation(cohort):
    root, held_out, training, made = cohort
    generators = {"ours": made, NASTY: made}
    return evaluate(held_out, training, generators, work_dir=root / "work", progress=False)


@pytest.fixture(scope="module")
def text(evaluation):
    context = {
        "title": f"Report {NASTY}",
        "dataset": NASTY,
        "settings": {"guidance": 1.5, NASTY: NASTY},
        "versions": {"fmrisynth": "0.0"},
        "notices": [NASTY],
    }
    return render_group_report(evaluation, context)


def test_page_needs_nothing_else(text):
    page = Page(text)
    assert page.open == []
    assert all(item.startswith(("data:", "#")) for item in page.fetched)
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert not re.search(r"url\((?!['\"]?#)", text)
    assert "@import" not in text


def test_strings_of_the_dataset_are_escaped(text):
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 6


def test_links_lead_somewhere(text):
    page = Page(text)
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)


def test_the_verdict_comes_first_and_the_pictures_follow(text):
    sections = re.findall(r'<section id="(\w+)"', text)
    assert sections[:2] == ["verdict", "maps"]
    assert sections[-2:] == ["numbers", "methods"]
    assert {"rdms", "courses", "noise", "individuals", "networks", "copying", "use"} <= {*sections}
    assert text.index("Activation maps (Corr)") < text.index("data:image/png")


def test_all_conditions_and_participants_are_named(text, evaluation):
    for name in (*evaluation.conditions.names, *evaluation.held_out, *evaluation.training):
        assert name in text


def test_schemes_phone_and_print_are_styled(text):
    for rule in ("prefers-color-scheme: dark", "max-width: 40rem", "@media print", "viewport"):
        assert rule in text


def test_a_single_participant_gets_its_notice_on_top(cohort, tmp_path):
    root, held_out, _, made = cohort
    one = [run for run in held_out if run.participant == "07"]
    evaluation = evaluate([], one, {"ours": made[:6]}, work_dir=root / "work", progress=False)
    write_group_report(evaluation, tmp_path / "out" / "group.html", {})
    page = (tmp_path / "out" / "group.html").read_text(encoding="utf-8")
    assert page.index("Nothing was held out") < page.index('id="verdict"')
    assert "not judged: no ceiling" in page
    assert Page(page).open == []


def test_citation_is_plain_text(evaluation, tmp_path):
    write_citation(evaluation, tmp_path / "logs" / "CITATION.md", {"fmrisynth": "0.0"})
    text = (tmp_path / "logs" / "CITATION.md").read_text(encoding="utf-8")
    assert "<p>" not in text
    assert "{%" not in text
    assert NASTY in text  # plain text is not escaped
    assert "2 held-out participants" in text


def test_participant_page(cohort, tmp_path):
    root, held_out, _, made = cohort
    real = [run for run in held_out if run.participant == "07"]
    synthetic = [run for run in made if run.participant == "07"]
    target = tmp_path / "sub-07.html"
    write_participant_report(
        real, synthetic, target, work_dir=root / "work", context={"role": NASTY}
    )
    text = target.read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert all(item.startswith(("data:", "#")) for item in page.fetched)
    assert "<script" not in text
    assert text.count("Carpet plot of the real run") == text.count("Carpet plot of the synthetic")
    assert text.count("Carpet plot of the synthetic") == len(synthetic)
    assert all(name in text for name in ("fear", "left", "verb"))


def test_a_simulated_participant_without_real_runs_has_a_page(cohort, tmp_path):
    root, _, _, made = cohort
    run = replace(made[0], entities={**made[0].entities, "sub": "synth001"})
    write_participant_report([], [run], tmp_path / "page.html", work_dir=root / "work")
    assert "sub-synth001" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_slices_do_not_depend_on_how_the_volume_is_stored():
    rng = np.random.default_rng(0)
    volume, values = 1 + rng.random((2, 8, 9, 10))
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    flipped = affine @ np.diag([-1.0, 1.0, -1.0, 1.0])
    flipped[:3, 3] = (affine @ [7, 0, 9, 1])[:3]
    turned = affine[:, [1, 0, 2, 3]]
    straight = draw_slices(volume, values, affine, limit=2.0)
    mirrored = draw_slices(volume[::-1, :, ::-1], values[::-1, :, ::-1], flipped, limit=2.0)
    swapped = draw_slices(volume.transpose(1, 0, 2), values.transpose(1, 0, 2), turned, limit=2.0)
    assert straight.image == mirrored.image == swapped.image
    assert straight.heights == pytest.approx(mirrored.heights)


def test_one_scale_for_all_maps():
    volume = np.ones((6, 6, 6))
    weak, strong = (
        draw_slices(volume, scale * volume, np.eye(4), limit=1.0).image for scale in (0.5, 1.0)
    )
    beyond = draw_slices(volume, 3.0 * volume, np.eye(4), limit=1.0).image
    assert weak != strong
    assert strong == beyond


def test_names_are_text_and_not_formulas():
    svg = figures.draw_matrix(np.eye(2), [NASTY, "b $"], label=NASTY, low=0, high=1)
    assert "<script" not in svg
    assert "$" in svg


def test_charts_take_the_ink_of_the_page():
    svg = figures.draw_spectra({"a": np.ones(4) / 4}, 0.25, {"a": "#0072b2"})
    assert "currentColor" in svg
    assert "#010203" not in svg


def test_carpet_has_a_pixel_for_each_volume():
    import base64
    import io

    from matplotlib.image import imread

    rows = np.random.default_rng(0).normal(size=(500, 37))
    uri = draw_carpet(rows, limit=2.0, most_rows=100)
    picture = imread(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert picture.shape[:2] == (100, 37)
