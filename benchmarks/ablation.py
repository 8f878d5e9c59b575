"""What each part of the model adds: the full model less one part, other networks, other systems.

Every row trains on the participants that are not held out, measures its skill on those that are,
and writes their runs, whose group maps are compared with the real ones. A seed decides who is
held out, the initial weights and all noise; rows are compared within a seed. All models of a
seed share the caches, and those with one autoencoder the autoencoder.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from group_maps import MEASURES, Reference, synthetic_maps, train
from results import Results, append, header, table

import fmrisynth
from fmrisynth.bids.dataset import Dataset
from fmrisynth.config.codec import override
from fmrisynth.config.model import ModelConfig
from fmrisynth.config.presets import PAPER_METHOD, PRESETS, SYSTEMS
from fmrisynth.errors import DataError
from fmrisynth.model.model import Model

Settings = dict[str, str]

ARCHITECTURES: dict[str, Settings] = {
    "hybrid": {},
    "All-CNN": {"denoiser.backbone.architecture": "cnn"},
    "All-Transformer": {"denoiser.backbone.architecture": "transformer"},
    "AdaLN only": {"denoiser.backbone.cross_attention": "false"},
    "MONAI": {"denoiser.backbone.architecture": "monai"},
}
# the network has to learn the responses, however long nothing is seen of them
ALONE = {"response.kind": "none", "diffusion_training.patience": "0"}
NO_REGRESSION = {"diffusion_training.regression_share": "0"}
NETWORK_PARTS: dict[str, Settings] = {
    "positions": {"denoiser.backbone.positions": "false"},
    "normalised condition": {"denoiser.backbone.normalised_condition": "false"},
    "frame head": {"denoiser.backbone.frame_components": "0"},
}
PARTS: dict[str, Settings] = {
    "noise level": {"noise_level": "false"},
    "individual responses": {"response.kind": "glm"},
    "response model": ALONE,
    "mode head": {"denoiser.mode_width": "0"},
    **NETWORK_PARTS,
    "gate": {"diffusion_training.gate": "false"},
    "backbone": {"sampling.backbone": "false"},
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
# as large as the hybrid of widths 64 and 128
PLAIN_TRANSFORMER = {"denoiser.backbone.widths": "[128]", "denoiser.backbone.blocks": "[7]"}
ADDITIONS = {
    "v-prediction": ["denoiser.prediction", "denoiser.schedule.kind"],
    "residuals": ["preprocess.normalisation", "sampling.decoder_noise"],
    "coloured noise": ["denoiser.noise"],
    "frame tokens": ["denoiser.backbone.frame_tokens"],
    "carrier": ["denoiser.backbone.anatomy"],
    "response model": ["response.kind"],
    "regression phase": ["diffusion_training.regression_share"],
    "noise level": ["noise_level"],
    "principal components": [
        *CODEBOOK,
        "autoencoder.decode_codes",
        "autoencoder_training.quantise_share",
    ],
}


def rows() -> dict[str, Settings]:
    """Return the settings of every row, by which it differs from the preset."""
    named: dict[str, Settings] = {"full": {}}
    named |= {f"less {part}": settings for part, settings in PARTS.items()}
    named |= {name: s for name, s in ARCHITECTURES.items() if s}
    alone = {f"alone, {name}": s | ALONE for name, s in ARCHITECTURES.items() if s}
    alone["alone, less regression phase"] = ALONE | NO_REGRESSION
    alone |= {f"alone, less {part}": ALONE | s for part, s in NETWORK_PARTS.items()}
    named |= alone
    named["paper's method"] = AS_IN_PAPER
    for name, fields in ADDITIONS.items():
        kept = {field: value for field, value in AS_IN_PAPER.items() if field not in fields}
        named[f"paper + {name}"] = kept
    systems = {name: AS_IN_PAPER | settings for name, settings in SYSTEMS.items()}
    systems["dit"] |= PLAIN_TRANSFORMER
    return named | systems


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path, help="BIDS dataset, all runs on one grid")
    parser.add_argument("folder", type=Path, help="working folder; finished rows in it are kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, help="of the diffusion's training")
    parser.add_argument("--autoencoder-steps", type=int, default=300, help="where it is trained")
    parser.add_argument("--preset", default="demo", choices=PRESETS)
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="of every row"
    )
    parser.add_argument("--only", nargs="+", choices=rows(), metavar="ROW", help="rows to run")
    parser.add_argument("--skill-only", action="store_true", help="write and compare no runs")
    return parser.parse_args()


def settings_of(options: argparse.Namespace) -> ModelConfig:
    """Return the preset with the options of every row."""
    given = {"autoencoder_steps": str(options.autoencoder_steps)}
    if options.steps is not None:
        given["diffusion_steps"] = str(options.steps)
    given |= dict(item.split("=", 1) for item in options.set)
    return override(PRESETS[options.preset], given)


def skill_of(model: Model) -> dict[str, float]:
    """Return the gains of network and of all parts together, averaged over angles and by angle.

    With white noise the loss of "nothing" is no reference: its gains are left out.
    """
    if model.info.config.denoiser.noise == "white":
        return {}
    gains: dict[str, list[float]] = {"backbone": [], "all": []}
    values = {"gate": float(model.denoiser.gate.max())}
    for row in model.skill:
        if row.part == "backbone":
            values[f"θ {row.theta:.2f}"] = 1000 * row.gain
            values[f"excludes zero {row.theta:.2f}"] = float(row.ci_low > 0)
            gains["backbone"].append(row.gain)
        if row.part in ("backbone", "noise level + response"):
            gains["all"].append(row.gain)
    n_angles = len(gains["backbone"])
    return values | {name: 1000 * sum(g) / n_angles for name, g in gains.items()}


def measure_row(
    dataset: Dataset, config: ModelConfig, seed: int, options: argparse.Namespace
) -> dict[str, float]:
    """Train one model and measure it; NaN for the maps of runs that no GLM can be fitted to."""
    trained = train(dataset.runs, config, options.folder / "work", seed)
    values = skill_of(trained.model) | {"CPU s": trained.cpu_seconds}
    if options.skill_only:
        return values
    reference = Reference(dataset.runs, config.held_out_share, seed, options.folder / "work")
    try:
        maps = synthetic_maps(trained.model, dataset, reference.split.held_out)
    except DataError as error:
        print(f"no maps: {error}", flush=True)
        return values | dict.fromkeys(MEASURES, math.nan)
    return values | reference.measure(maps)


def main() -> None:
    options = arguments()
    dataset, config = fmrisynth.find_runs(options.dataset), settings_of(options)
    chosen = {n: s for n, s in rows().items() if not options.only or n in options.only}
    results = Results(
        options.folder / "rows",
        [options.dataset, options.preset, options.steps, options.set, options.skill_only],
    )
    found: dict[str, dict[str, list[float]]] = {}
    for seed in options.seeds:
        for name, settings in chosen.items():
            values = results.get(
                name,
                seed,
                lambda s=settings, seed=seed: measure_row(
                    dataset, override(config, s), seed, options
                ),
            )
            append(found, name, values)
    compare(found)
    print(header(), "\n")
    angles = [name for name in next(iter(found.values())) if name.startswith("θ")]
    columns = {"backbone": 2, "less than the first": 2, "all": 2} | dict.fromkeys(angles, 2)
    print("Gains × 1000\n\n" + table(found, columns | {"gate": 2, "CPU s": 0}))
    if not options.skill_only:
        print("\n" + table(found, {"corr": 3, "Corr less": 3, "rsa": 3, "top1": 2, "slope": 3}))


def compare(found: dict[str, dict[str, list[float]]]) -> None:
    """Subtract every row from the first, seed by seed: who is held out then drops out."""
    first, *others = found.values()
    for values in others:
        for measure, name in (("all", "less than the first"), ("corr", "Corr less")):
            if values.get(measure) and first.get(measure):
                pairs = zip(first[measure], values[measure], strict=True)
                values[name] = [a - b for a, b in pairs]


if __name__ == "__main__":
    main()
