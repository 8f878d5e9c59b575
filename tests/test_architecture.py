"""The shape of the package: import contracts, public names, and documented commands."""

import importlib
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import fmrisynth

PACKAGE = Path(fmrisynth.__file__).parent
REPOSITORY = Path(__file__).resolve().parents[1]
MODULES = sorted(
    name
    for _, name, _ in pkgutil.walk_packages([str(PACKAGE)], "fmrisynth.")
    if not name.endswith("__main__")
)
OPTIONAL = ("monai", "brainiak")  # extras of the baselines

in_repository = pytest.mark.skipif(
    not (REPOSITORY / "pyproject.toml").exists(), reason="not run from the repository"
)


def module_of(name):
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] in OPTIONAL:
            pytest.skip(f"{error.name} is not installed")
        raise


@in_repository
def test_imports_keep_their_contracts():
    pytest.importorskip("importlinter")
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from importlinter.cli import lint_imports; "
            "sys.exit(lint_imports(no_cache=True))",
        ],
        cwd=REPOSITORY,
        env=dict(os.environ, PYTHONPATH=str(REPOSITORY)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "0 broken" in done.stdout


@pytest.mark.slow
def test_what_touches_files_does_not_load_torch():
    """Importing the parts that read, simulate and evaluate is light."""
    light = [
        name
        for name in MODULES
        if name.split(".")[1] in ("bids", "preprocess", "evaluation", "reports", "phantom")
    ]
    assert len(light) > 20
    code = (
        f"import importlib, sys\nfor n in {light!r}: importlib.import_module(n)\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=dict(os.environ, PYTHONPATH=str(REPOSITORY)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("name", MODULES)
def test_public_names_exist(name):
    module = module_of(name)
    assert (module.__doc__ or "").strip()
    public = getattr(module, "__all__", None)
    if public is None:
        return
    assert len(set(public)) == len(public), "a name stands there twice"
    for attribute in public:
        assert hasattr(module, attribute), attribute


@pytest.mark.parametrize("name", MODULES)
def test_public_functions_and_classes_have_docstrings(name):
    module = module_of(name)
    for attribute in getattr(module, "__all__", ()):
        value = getattr(module, attribute)
        if callable(value) and getattr(value, "__module__", None) == name:
            assert (value.__doc__ or "").strip(), attribute


@in_repository
def test_every_module_says_what_is_public():
    missing = [
        str(path.relative_to(REPOSITORY))
        for path in (REPOSITORY / "fmrisynth").rglob("*.py")
        if not path.name.startswith("__") and "__all__" not in path.read_text(encoding="utf-8")
    ]
    assert missing == []


@in_repository
def test_modules_are_short():
    long = {
        str(path.relative_to(REPOSITORY)): lines
        for path in (REPOSITORY / "fmrisynth").rglob("*.py")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 400
    }
    assert long == {}
