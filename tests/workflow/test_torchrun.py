"""The processes of torchrun train one model and share the runs."""

import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from safetensors.numpy import load_file

import fmrisynth

pytestmark = pytest.mark.slow

REPOSITORY = Path(fmrisynth.__file__).parents[1]
SMALL = [
    *("--set", "preprocess.voxel_size=8"),
    *("--set", "denoiser.backbone.widths=[16, 32]"),
    *("--set", "denoiser.backbone.blocks=[1, 1]"),
    *("--max-steps", "3"),
    *("--sampling-steps", "3"),
    *("--precision", "32-true"),
    *("--device", "cpu"),
    *("--nprocs", "1"),
    "--skip-bids-validation",
]


def call(*words):
    path = os.pathsep.join(p for p in (str(REPOSITORY), os.environ.get("PYTHONPATH")) if p)
    done = subprocess.run(
        [sys.executable, "-m", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
        env=dict(os.environ, PYTHONPATH=path, OMP_NUM_THREADS="1"),
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """What one process and what two make of the same phantom."""
    root = tmp_path_factory.mktemp("torchrun")
    phantom = root / "phantom"
    call(
        "fmrisynth.phantom", phantom, "--n-participants", 2, "-t", "MOTOR", "--voxel-size", 8,
        "--n-volumes", 28, "--nprocs", 1, "--quiet",
    )  # fmt: skip
    call("fmrisynth", phantom, root / "one", "participant", *SMALL)
    call(
        "torch.distributed.run", "--standalone", "--nproc-per-node", 2, "-m", "fmrisynth",
        phantom, root / "two", "participant", *SMALL,
    )  # fmt: skip
    return root / "one", root / "two"


def test_two_processes_train_the_model_of_one(outputs):
    one, two = (load_file(out / "model" / "denoiser.safetensors") for out in outputs)
    assert one.keys() == two.keys()
    for name, values in one.items():
        # Adam's first steps are of the size of the learning rate, whatever a gradient's size
        np.testing.assert_allclose(two[name], values, atol=2e-3, err_msg=name)


def test_two_processes_write_the_runs_of_one(outputs):
    one, two = (
        {p.relative_to(out): p for p in out.rglob("*") if p.is_file() and "logs" not in p.parts}
        for out in outputs
    )
    assert one.keys() == two.keys()
    images = [p for p in one if p.name.endswith("desc-synth_bold.nii.gz")]
    assert len(images) == 4
    for name in images:
        a, b = (np.asarray(nib.load(found[name]).dataobj) for found in (one, two))
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.999
    assert one[Path("participants.tsv")].read_text() == two[Path("participants.tsv")].read_text()
