"""Corr, RSA and Top-1 at an equal training budget on one phantom cohort, over several seeds.

Every row is the command line with other options: one trains on the participants
that are not held out, writes the runs of those that are, and the group level of
the first row compares all of them with the real runs. A seed decides who is held
out, the initial weights and all noise.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from scipy.stats import t as student

from fmrisynth.config.presets import PAPER_METHOD, PRESETS
from fmrisynth.preprocess.splits import choose_split

METRICS = ("corr", "rsa", "top1", "slope")
ARCHITECTURES = {
    "hybrid": {},
    "All-CNN": {"denoiser.backbone.architecture": "cnn"},
    "All-Transformer": {"denoiser.backbone.architecture": "transformer"},
    "AdaLN only": {"denoiser.backbone.cross_attention": "false"},
    "MONAI": {"denoiser.backbone.architecture": "monai"},
}
NO_RESPONSE = {"response.kind": "none"}
# learned by the diffusion's targets alone, as the paper's network does
NO_REGRESSION = NO_RESPONSE | {"diffusion_training.regression_share": "0"}
FORMS = {
    "group GLM": {"response.kind": "glm"},
    "no noise level": {"noise_level": "false"},
    "no gate": {"diffusion_training.gate": "false"},
    "no backbone": {"sampling.backbone": "false"},
}
# the 1000 steps of the paper's sampler would take longer than all of the training
FEWER_STEPS = {"sampling.sampler": "ddim", "sampling.steps": "20"}
CODEBOOK = {
    "autoencoder.convolutional": "true",
    "autoencoder.quantizer": "ema",
    "autoencoder.codebook_size": "512",
    "autoencoder.base_width": "16",
    "autoencoder.multipliers": "[1, 2]",
    "autoencoder.norm_groups": "8",
    "autoencoder.patch": "2",
    "autoencoder_training.batch_size": "4",
    "autoencoder_training.learning_rate": "5e-3",
}
AS_IN_PAPER = PAPER_METHOD | FEWER_STEPS | CODEBOOK
ADDITIONS = {
    "v-prediction": ["denoiser.prediction", "denoiser.schedule.kind"],
    "residuals": ["preprocess.normalisation", "sampling.decoder_noise"],
    "coloured noise": ["denoiser.noise"],
    "frame tokens": ["denoiser.backbone.frame_tokens"],
    "carrier": ["denoiser.backbone.anatomy"],
    "response model": ["response.kind"],
    "regression": ["diffusion_training.regression_share"],
    "noise level": ["noise_level"],
    "principal components": [
        *CODEBOOK,
        "autoencoder.decode_codes",
        "autoencoder_training.quantise_share",
    ],
}


def rows() -> dict[str, dict[str, str]]:
    """Return the settings of every row beyond the small model's."""
    named = dict(ARCHITECTURES)
    named |= {f"hybrid, {name}": settings for name, settings in FORMS.items()}
    named |= {f"{n}, no response model": s | NO_RESPONSE for n, s in ARCHITECTURES.items()}
    named["hybrid, no regression"] = NO_REGRESSION
    named["paper's method"] = AS_IN_PAPER
    for name, fields in ADDITIONS.items():
        kept = {field: value for field, value in AS_IN_PAPER.items() if field not in fields}
        named[f"paper + {name}"] = kept
    return named


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="working folder; finished rows in it are kept")
    parser.add_argument("--phantom", type=Path, help="cohort [default: made in the folder]")
    parser.add_argument("--voxel-size", default="8", help="mm, of the cohort made and of the model")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300, help="of the diffusion's training")
    parser.add_argument("--autoencoder-steps", type=int, default=300)
    parser.add_argument("--preset", default="demo")
    parser.add_argument(
        "--set",
        action="append",
        metavar="NAME=VALUE",
        help="of every row [default: widths 64 and 128]",
    )
    parser.add_argument("--nprocs", default="1")
    parser.add_argument("--only", nargs="+", help="names of the rows to run")
    return parser.parse_args()


def fmrisynth(log: Path, *words: object) -> None:
    """Run the command line, its output into a log."""
    with open(log, "a", encoding="utf-8") as stream:
        command = [sys.executable, "-m", "fmrisynth", *map(str, words)]
        result = subprocess.run(command, stdout=stream, stderr=stream, check=False)
    if result.returncode:
        sys.exit(f"{' '.join(command)}\nended with {result.returncode}; see {log}")


def make_row(
    options: argparse.Namespace, phantom: Path, out: Path, seed: int, changes: dict[str, str]
) -> None:
    """Train one model and write its runs of the participants held out."""
    settings = {
        "preprocess.voxel_size": options.voxel_size,
        "autoencoder_steps": str(options.autoencoder_steps),
        "diffusion_steps": str(options.steps),
    }
    given = options.set or ["denoiser.backbone.widths=[64,128]"]
    settings |= dict(item.split("=", 1) for item in given) | changes
    words = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    participants = [path.name.removeprefix("sub-") for path in phantom.glob("sub-*")]
    held_out = choose_split(participants, PRESETS[options.preset].held_out_share, seed).held_out
    started = time.monotonic()
    fmrisynth(
        out.parent / f"{out.name}.log", phantom, out, "participant", "--preset", options.preset,
        *words, "--participant-label", *held_out, "--nprocs", options.nprocs,
        "--random-seed", seed, "-w", out.parent / "work",
    )  # fmt: skip
    with open(out / "model" / "log-diffusion.csv", newline="") as stream:
        last = list(csv.DictReader(stream))[-1]
    spent = {
        "step_s": float(last["seconds"]) / int(last["step"]),
        "total_s": time.monotonic() - started,
    }
    (out.parent / f"{out.name}.json").write_text(json.dumps(spent))


def compare(phantom: Path, folder: Path, names: list[str], seed: int, nprocs: str) -> list[dict]:
    """Rows of the group level's table, all models of a seed in one."""
    first, *others = (folder / slug(name) for name in names)
    table = first / "group" / "metrics.tsv"
    done = folder / "compared.json"
    if not done.is_file() or json.loads(done.read_text()) != names:
        others_named = [word for o in others for word in ("--compare", f"{o.name}={o}")]
        fmrisynth(
            folder / "group.log", phantom, first, "group", *others_named, "--random-seed", seed,
            "--nprocs", nprocs, "-w", folder / "work",
        )  # fmt: skip
        done.write_text(json.dumps(names))
    with open(table, newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.lower())


def interval(values: list[float]) -> str:
    """Mean and 95 % interval over seeds (Student)."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return f"{mean:.3f}"
    half = student.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{mean:.3f} ± {half:.3f}"


def main() -> None:
    options = arguments()
    chosen = {n: s for n, s in rows().items() if not options.only or n in options.only}
    phantom = options.phantom or options.folder / "phantom"
    if not phantom.exists():
        phantom.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "fmrisynth.phantom", phantom, "--quiet"]
        subprocess.run([*command, "--voxel-size", options.voxel_size], check=True)
    found: dict[str, dict[str, list[float]]] = {}
    folders = [options.folder / f"seed-{seed}" for seed in range(options.seeds)]
    for seed, folder in enumerate(folders):
        folder.mkdir(parents=True, exist_ok=True)
        for name, changes in chosen.items():
            if not (folder / f"{slug(name)}.json").is_file():
                make_row(options, phantom, folder / slug(name), seed, changes)
            spent = json.loads((folder / f"{slug(name)}.json").read_text())
            found.setdefault(name, {}).setdefault("step", []).append(spent["step_s"])
            print(f"seed {seed}, {name}: {spent['total_s']:.0f} s", flush=True)
    for seed, folder in enumerate(folders):
        by_slug = {slug(name): name for name in chosen} | {"fmrisynth": next(iter(chosen))}
        for row in compare(phantom, folder, list(chosen), seed, options.nprocs):
            name = by_slug.get(row["generator"], row["generator"])
            if row["metric"] in METRICS and row["value"] != "n/a":
                found.setdefault(name, {}).setdefault(row["metric"], []).append(float(row["value"]))
                if name == next(iter(chosen)):
                    ceilings = found.setdefault("ceiling", {})
                    ceilings.setdefault(row["metric"], []).append(float(row["ceiling"]))
    report(found, options)


def report(found: dict[str, dict[str, list[float]]], options: argparse.Namespace) -> None:
    print(f"\n{options.seeds} seeds, {options.steps} steps, preset {options.preset}\n")
    first = next(iter(found.values()))
    print("| row | " + " | ".join(METRICS) + " | first row's Corr − its own | s a step |")
    print("|---|" + "---|" * (len(METRICS) + 2))
    for name, values in found.items():
        cells = [interval(values[m]) if m in values else "n/a" for m in METRICS]
        # the seeds differ in who is held out: compared within a seed, that drops out
        pairs = zip(first["corr"], values["corr"], strict=True)
        cells.append("" if values is first else interval([a - b for a, b in pairs]))
        step = f"{statistics.median(values['step']):.3f}" if "step" in values else ""
        print(f"| {name} | " + " | ".join(cells) + f" | {step} |")


if __name__ == "__main__":
    main()
