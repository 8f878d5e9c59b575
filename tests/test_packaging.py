"""Documentation, constraints and build files agree with the package."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import click
import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from fmrisynth import __version__, errors
from fmrisynth.cli import signals as interruption
from fmrisynth.cli.exit_codes import EXIT_CODES
from fmrisynth.cli.main import command
from fmrisynth.config.codec import override
from fmrisynth.config.presets import PRESETS, PURPOSES

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
SETTINGS_PAGE = "docs/how_to/settings.md"
OPTIONS = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
TARGETS = (
    *("demo", "test", "test-fast", "coverage", "lint", "reference", "docs"),
    *("image", "release", "clean"),
)


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def constraints() -> dict[str, Version]:
    """Versions of constraints.txt by normalised name; a line of any other form is an error."""
    versions = {}
    for line in read("constraints.txt").splitlines():
        if line.startswith("#"):
            continue
        match = re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.]+)", line)
        assert match, f"constraints.txt: {line!r} is no plain NAME==VERSION"
        versions[normalised(match[1])] = Version(match[2])
    return versions


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements() -> list[Requirement]:
    """What package, tests and documentation need, with what the extras they name need."""
    project = tomllib.loads(read("pyproject.toml"))["project"]
    extras = project["optional-dependencies"]
    texts = [*project["dependencies"], *extras["test"], *extras["docs"]]
    wanted = [Requirement(text) for text in texts]
    own = {extra for r in wanted if r.name == project["name"] for extra in r.extras}
    wanted += [Requirement(text) for extra in own for text in extras[extra]]
    return [requirement for requirement in wanted if requirement.name != project["name"]]


@pytest.mark.parametrize("spelling", sorted({name for option in OPTIONS for name in option.opts}))
def test_every_option_is_documented(spelling: str) -> None:
    assert re.search(rf"`{re.escape(spelling)}[ `]", read("docs/reference/options.md"))


def test_documentation_names_no_option_that_is_not_there() -> None:
    known = {name for option in OPTIONS for name in option.opts} | {"--help", "-h"}
    table = read("docs/reference/options.md")
    assert set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", table)) <= known
    calls = [
        line
        for path in PAGES
        for line in path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
        if re.match(r"\s*fmrisynth (?!\w+\.sif)\S+ \S+ (participant|group)", line)
    ]
    assert len(calls) > 15
    for call in calls:
        assert set(re.findall(r"(?<!\S)--?[a-z][a-z-]*", call.partition(" #")[0])) <= known, call


def test_settings_in_the_documentation_exist() -> None:
    settings = re.findall(r"`--set ([a-z_.]+)=([^`\s]+)`", read(SETTINGS_PAGE))
    assert len(settings) >= 10
    for name, value in settings:
        # not a change that only looks like one: every example differs from the preset
        assert override(PRESETS["demo"], {name: value}) != PRESETS["demo"], name


def test_every_exit_code_is_documented() -> None:
    raised = {getattr(errors, name).exit_code for name in errors.__all__}
    assert raised | {0, 17, 64, 130, interruption.EXIT_CODE} == set(EXIT_CODES)


def test_every_preset_has_a_purpose() -> None:
    assert {name.partition("-")[0] for name in PRESETS} == set(PURPOSES)


def test_readme_is_one_that_is_read() -> None:
    assert len(read("README.md").splitlines()) <= 180


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "benchmarks/README.md"])
def test_links_of_pages_outside_the_site_lead_somewhere(name: str) -> None:
    """`make docs` checks those of the site."""
    for link in re.findall(r"\]\(([^)\s]+)\)", read(name)):
        path, _, anchor = link.partition("#")
        if re.match(r"\w+:", link):
            continue
        target = (ROOT / name).parent / path if path else ROOT / name
        assert target.exists(), link
        if anchor:
            titles = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), flags=re.M)
            slugs = {re.sub(r"[^\w -]", "", t.lower()).replace(" ", "-") for t in titles}
            assert anchor in slugs, link


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "images").iterdir()), ids=lambda p: p.name)
def test_pictures_are_small_and_shown(path: Path) -> None:
    assert path.stat().st_size < 200_000
    assert any(f"images/{path.name}" in page.read_text(encoding="utf-8") for page in PAGES)


def test_architecture_shows_every_part_of_the_package() -> None:
    tree = read("docs/development/architecture.md").split("## Floors")[0]
    parts = {
        f"{path.name}/" if path.is_dir() else path.name
        for path in (ROOT / "fmrisynth").iterdir()
        if (path.is_dir() and (path / "__init__.py").exists()) or path.suffix == ".py"
    }
    missing = {part for part in parts - {"__init__.py"} if f"{part} " not in tree}
    assert missing == set()
    named = re.findall(r"^  (\w+\.py|\w+/) ", tree, flags=re.MULTILINE)
    assert set(named) <= parts


def test_constraints_cover_the_requirements() -> None:
    versions = constraints()
    for requirement in requirements():
        version = versions.get(normalised(requirement.name))
        assert version is not None, f"constraints.txt has no {requirement.name}"
        assert version in requirement.specifier, f"{requirement} against {version}"


def test_the_tests_need_the_validator() -> None:
    assert "bids-validator-deno" in {requirement.name for requirement in requirements()}


def test_requirements_have_lower_bounds_only() -> None:
    for requirement in requirements():
        assert {part.operator for part in requirement.specifier} == {">="}, requirement


def test_changes_have_this_version() -> None:
    assert re.search(
        rf"^## \[{re.escape(__version__)}\] - \d{{4}}-\d\d-\d\d$", read("CHANGES.md"), re.M
    )


@pytest.mark.parametrize("target", TARGETS)
def test_makefile_has_the_target(target: str) -> None:
    done = subprocess.run(
        ["make", "--dry-run", target, "VENV=/nonexistent/venv", "DEMO=/nonexistent/demo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_make_demo_takes_the_steps_in_order() -> None:
    done = subprocess.run(
        ["make", "--dry-run", "demo", "VENV=/nonexistent/venv", "DEMO=/nonexistent/demo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    steps = (
        "-m venv",
        "'^torch==",
        "constraint constraints.txt",
        "fmrisynth.phantom",
        "--train-only",
        "--participant-label",
        "group",
        "headline.py",
        "group.html",
    )
    places = [done.stdout.find(step) for step in steps]
    assert -1 not in places
    assert places == sorted(places)


@pytest.mark.parametrize("name", ["Dockerfile", "Singularity.def"])
def test_images_take_their_base_as_an_argument_and_the_same_environment(name: str) -> None:
    text = read(name)
    assert "BASE_IMAGE=python:3.12-slim-bookworm" in text
    assert "/opt/fmrisynth/bin/fmrisynth" in text
    assert '".[validator]"' in text
    assert "fmrisynth.evaluation.runs.atlas /opt/templateflow" in text
    variables = set(
        re.findall(r"^(?:ENV |    export |    )([A-Z_]+=\S+)", text, flags=re.MULTILINE)
    )
    assert {
        "PYTHONNOUSERSITE=1",
        "MPLCONFIGDIR=/tmp/matplotlib",
        "DENO_DIR=/opt/fmrisynth/deno",
        "TEMPLATEFLOW_HOME=/opt/templateflow",
        "TEMPLATEFLOW_AUTOUPDATE=0",
    } <= variables


def test_dockerfile_needs_no_buildkit() -> None:
    text = read("Dockerfile")
    assert "<<" not in text
    assert "--link" not in text
    assert "--mount" not in text
    assert text.count("FROM ${BASE_IMAGE}") == text.count("\nFROM ") == 2


def test_dockerignore_lets_through_what_the_dockerfile_copies() -> None:
    let_through = re.findall(r"^!(\S+)$", read(".dockerignore"), flags=re.MULTILINE)
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", read("Dockerfile"), flags=re.MULTILINE)
    assert {name for line in copied for name in line.split()} == set(let_through)
    files = read("Singularity.def").split("%files")[1].split("%post")[0].split()
    assert set(files[::2]) == set(let_through)
