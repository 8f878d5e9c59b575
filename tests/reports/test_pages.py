"""The pages: complete, self-contained, escaped."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from matplotlib.image import imsave
from support.evaluation_cohort import HELD_OUT, TRAINING, Recipe, write_cohort

from fmrisynth.evaluation.cohort.contrasts import Contrast
from fmrisynth.evaluation.cohort.roles import REAL
from fmrisynth.evaluation.evaluate import evaluate
from fmrisynth.evaluation.metrics.registry import all_metrics
from fmrisynth.reports import citations, tables
from fmrisynth.reports.html import render_group_report, write_citation, write_group_report
from fmrisynth.reports.participant import write_participant_report

pytestmark = pytest.mark.slow

NASTY = "<script>alert('$x_1$')</script>&"


SVG_TAGS = ("svg", "g", "path", "defs", "use", "text", "tspan", "clippath", "rect", "style")
KNOWN_ATTRIBUTES = frozenset(
    ("alt", "charset", "class", "content", "data-name", "href", "id", "lang", "name", "open")
)
KNOWN_ATTRIBUTES |= {"scope", "src", "style"}


class Page(HTMLParser):
    """Collects what a browser would fetch, the ids and links, and checks nesting."""

    VOID = frozenset(["meta", "img", "br", "hr", "link", "input", "path", "rect", "use"])

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched, self.ids, self.links, self.tags, self.open = [], [], [], [], []
        self.attributes = set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.attributes |= {key for key in values if tag not in SVG_TAGS or key.startswith("on")}
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
    contrasts = [Contrast(f"fear > {NASTY}", "faces", {"fear": 1.0, "happy": -1.0})]
    return evaluate(
        held_out,
        training,
        generators,
        work_dir=root / "work",
        contrasts=contrasts,
        progress=False,
    )


@pytest.fixture(scope="module")
def hostile(evaluation):
    """Give everything that a dataset or a user names a name that is markup."""
    conditions = evaluation.conditions
    named = replace(
        conditions,
        names=tuple(f"{name} {NASTY}" for name in conditions.names),
        trial_types=tuple((f"{a} {NASTY}", f"{b} {NASTY}") for a, b in conditions.trial_types),
    )
    return replace(
        evaluation,
        conditions=named,
        held_out=tuple(f"{name} {NASTY}" for name in evaluation.held_out),
        training=tuple(f"{name} {NASTY}" for name in evaluation.training),
        notices=(*evaluation.notices, f"notice {NASTY}"),
        skipped={Path(f"/data/{NASTY}_bold.nii.gz"): f"reason {NASTY}"},
        settings={**evaluation.settings, NASTY: {NASTY: NASTY}},
        time_courses=tuple(
            replace(course, condition=f"{course.condition} {NASTY}", region=f"region {NASTY}")
            for course in evaluation.time_courses
        ),
        estimates={
            source: {**found, f"corr[{NASTY}]": found["corr"]}
            for source, found in evaluation.estimates.items()
        },
    )


@pytest.fixture(scope="module")
def curves(tmp_path_factory):
    path = tmp_path_factory.mktemp("curves") / f"curves-{quote(NASTY, safe='')}.png"
    imsave(path, np.zeros((3, 4, 3)))
    return path


@pytest.fixture(scope="module")
def text(hostile, curves):
    context = {
        "title": f"Report {NASTY}",
        "dataset": NASTY,
        "settings": {"guidance": 1.5, NASTY: NASTY},
        "versions": {"fmrisynth": "0.0"},
        "notices": [NASTY],
        "figures": {f"Autoencoder {NASTY}": curves, f"Lost {NASTY}": curves.with_name("no.png")},
    }
    return render_group_report(hostile, context)


def test_the_page_shows_what_the_classifier_looks_at(evaluation):
    text = render_group_report(evaluation, {})
    realism = text[text.index('<section id="realism">') :].partition("</section>")[0]
    kinds = [row for row in evaluation.estimates["ours"] if row.startswith("told_apart[")]
    drawn = [row for row in kinds if f"map of {row[len('told_apart[') : -1]}" in realism]
    assert len(drawn) == len(evaluation.feature_maps["ours"]) > 3
    assert realism.count("data:image/png") == 3 * len(drawn)  # two generators and the control


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
    assert text.count("&lt;script&gt;") >= 60
    page = Page(text)
    # A name that broke out of its attribute would make attributes that nobody wrote.
    assert page.attributes <= KNOWN_ATTRIBUTES


def test_a_name_with_a_quote_stays_in_its_attribute(hostile):
    names = tuple(f'{name}" onload="alert(1)' for name in hostile.conditions.names)
    generators = ('ours" onload="x', "it's")
    renamed = dict(zip(hostile.generators, generators, strict=True))
    evaluation = replace(
        hostile,
        conditions=replace(hostile.conditions, names=names),
        generators=generators,
        **{
            key: {renamed.get(name, name): value for name, value in getattr(hostile, key).items()}
            for key in (
                "estimates", "maps", "trial_type_maps", "contrast_maps", "z_maps", "rdms",
                "contrast_z_maps", "identification", "spectra", "networks", "copying",
                "participant_maps",
            )
        },
    )  # fmt: skip
    page = Page(render_group_report(evaluation, {}))
    assert page.open == []
    assert page.attributes <= KNOWN_ATTRIBUTES


def test_undecodable_names_of_files_do_not_stop_the_page(evaluation, tmp_path):
    name = b"data\xff".decode("utf-8", errors="surrogateescape")
    write_group_report(evaluation, tmp_path / "group.html", {"dataset": name})
    assert "data?" in (tmp_path / "group.html").read_text(encoding="utf-8")


def test_links_lead_somewhere(text):
    page = Page(text)
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)


def test_the_verdict_comes_first_and_the_pictures_follow(text):
    sections = re.findall(r'<section id="(\w+)"', text)
    assert sections[:2] == ["verdict", "maps"]
    assert sections[-2:] == ["numbers", "methods"]
    assert {
        "contrasts", "rdms", "identification", "courses", "noise", "individuals", "variance",
        "networks", "diversity", "copying", "use", "training", "skipped", "realism",
    } <= {*sections}  # fmt: skip
    assert text.index("Activation maps (Corr)") < text.index("data:image/png")


def test_each_rule_says_what_it_is_for_and_the_verdict_counts_all_outcomes(text):
    verdict = text[text.index('<section id="verdict"') : text.index('<section id="maps"')]
    uses = {metric.use.name.lower() for metric in all_metrics() if metric.rule is not None}
    assert len(uses) == 6
    assert all(f"for: {use}" in verdict for use in uses)
    met, missed, not_judged = map(
        int,
        re.search(r"(\d+) requirements? met.*?(\d+) missed.*?(\d+) not judged", verdict).groups(),
    )
    rules = [m for m in all_metrics() if m.rule is not None and not m.rule.optional]
    assert met + missed + not_judged == len(rules)


def test_all_conditions_and_participants_are_named(text, evaluation):
    for name in (*evaluation.conditions.names, *evaluation.held_out, *evaluation.training):
        assert name in text


def test_every_section_says_how_to_read_it(text):
    for section in text.split("<section ")[1:]:
        if not section.startswith('id="methods"'):
            assert 'class="reading"' in section, section[:60]


def test_a_run_left_out_is_listed_with_its_reason(text):
    listed = text[text.index('id="skipped"') : text.index('id="numbers"')]
    assert "reason &lt;script&gt;" in listed
    assert "_bold.nii.gz" in listed


def test_pictures_of_the_training_are_inlined_and_lost_ones_named(text):
    training = text[text.index('id="training"') : text.index('id="skipped"')]
    assert training.count("data:image/png") == 1
    assert "Autoencoder &lt;script&gt;" in training
    assert text.index("The picture “Lost &lt;script") < text.index('id="verdict"')


def test_without_contrasts_pictures_and_bad_runs_there_are_no_such_sections(evaluation):
    bare = replace(
        evaluation,
        conditions=replace(evaluation.conditions, contrasts=(), weights=np.zeros((0, 6))),
        contrast_maps={},
        contrast_z_maps={},
        skipped={},
    )
    page = Page(render_group_report(bare, {}))
    assert not {"contrasts", "training", "skipped"} & {*page.ids}
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)


def test_every_estimate_of_a_generator_stands_in_one_table(evaluation):
    shown = [
        id(row["cells"][0])
        for table in tables.section_tables(evaluation).values()
        for rows in (table["rows"], *(part["rows"] for part in table["details"]))
        for row in rows
    ]
    estimates = evaluation.estimates["ours"].values()
    assert sorted(shown) == sorted(id(e) for e in estimates if np.isfinite(e.value))


def test_every_metric_names_a_section_of_the_page(text):
    sections = set(re.findall(r'<section id="(\w+)"', text))
    assert {metric.section for metric in all_metrics()} <= sections


def test_tables_hold_the_estimates_with_their_references(evaluation):
    table = tables.section_tables(evaluation)["maps"]
    estimate = evaluation.estimates["ours"]["corr"]
    assert table["rows"][0]["cells"][0] is estimate
    assert table["rows"][0]["ceiling"] == estimate.ceiling
    assert table["rows"][0]["real"] == evaluation.estimates[REAL]["corr"].value
    parts = [row["label"] for row in table["details"][0]["rows"]]
    assert parts == list(evaluation.conditions.names)


def test_uses_follow_the_verdict(evaluation):
    def broken(*metrics):
        bad = {m: replace(evaluation.estimates["ours"][m], value=0.0) for m in metrics}
        figures = {**evaluation.estimates, "ours": {**evaluation.estimates["ours"], **bad}}
        used = tables.uses(replace(evaluation, estimates=figures), "ours")
        return {use["name"]: use for use in used}

    use = broken("lag1_ratio")["Time series of single runs"]
    assert use["state"] == "bad"
    assert "Lag-1" in use["said"]
    assert broken("corr")["Group maps and patterns"]["state"] == "bad"
    assert "Further requirements" not in broken()  # every rule belongs to a use


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
    assert "not judged: there is no ceiling" in page
    assert "Copying cannot be audited" in page
    assert "What carriers reveal" in page
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


def test_a_run_that_cannot_be_read_is_named_on_the_participant_page(cohort, tmp_path):
    root, held_out, _, made = cohort
    bad = tmp_path / "sub-07_task-faces_dir-AP_bold.nii.gz"
    bad.write_bytes(b"no image")
    synthetic = [replace(made[0], bold=bad), made[1]]
    write_participant_report(held_out[:2], synthetic, tmp_path / "a.html", work_dir=root / "work")
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "1 run of this participant could not be used" in text
    assert text.count("Carpet plot of the synthetic") == 1
    write_participant_report([], synthetic[:1], tmp_path / "b.html", work_dir=root / "work")
    assert "could not be used" in (tmp_path / "b.html").read_text(encoding="utf-8")


def test_hostile_events_are_escaped_on_the_participant_page(cohort, tmp_path):
    root, held_out, _, made = cohort
    events = tmp_path / "events.tsv"
    content = made[0].events.read_text(encoding="utf-8").replace("fear", NASTY)
    events.write_text(content, encoding="utf-8")
    runs = [replace(run, events=events) for run in (held_out[0], made[0])]
    context = {"dataset": NASTY, "notices": [NASTY]}
    write_participant_report(
        runs[:1], runs[1:], tmp_path / "a.html", work_dir=root / "work", context=context
    )
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 5
    assert Page(text).open == []


def test_citations_match_the_text(evaluation):
    paragraphs = citations.methods(evaluation)
    cited = set(re.findall(r"([A-Z][a-z]+)(?: et al\.)?, (?:19|20)\d\d", " ".join(paragraphs)))
    listed = {reference.split(",")[0] for reference in citations.references(paragraphs)}
    assert cited == listed
    settings = {**evaluation.settings, "regions of time courses": "Schaefer2018, 100 parcels"}
    with_atlas = " ".join(citations.methods(replace(evaluation, settings=settings)))
    assert "Schaefer2018, 100 parcels" in with_atlas
    assert {"Schaefer", "Ciric"} <= {r.split(",")[0] for r in citations.references([with_atlas])}
    simulated = replace(evaluation, generators=("fmrisim",))
    listed = citations.references(citations.methods(simulated))
    assert any(reference.startswith("Ellis") for reference in listed)
    assert not any("Ellis" in reference for reference in citations.references(paragraphs))


def test_the_methods_say_whether_intervals_hold_the_draw(evaluation):
    assert any("neither the draw" in text for text in citations.methods(evaluation))
    settings = {**evaluation.settings, "samples of each run": {"ours": 3, NASTY: 1}}
    several = citations.methods(replace(evaluation, settings=settings))
    assert any("means over samples" in text for text in several)
    assert not any("neither the draw" in text for text in several)
