"""Write the page of one participant: its real runs beside the synthetic ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from fmrisynth.bids.dataset import Run
from fmrisynth.bids.events import read_events
from fmrisynth.evaluation.measures.timecourses import mean_image
from fmrisynth.evaluation.runs.glm import GlmSettings
from fmrisynth.evaluation.runs.grids import Grid
from fmrisynth.evaluation.runs.records import RunRecord, summarise_usable_runs
from fmrisynth.reports import drawings
from fmrisynth.reports.html import write_page
from fmrisynth.reports.slices import draw_carpet, draw_slices
from fmrisynth.reports.templating import environment

__all__ = ["write_participant_report"]


def write_participant_report(
    real: Sequence[Run],
    synthetic: Sequence[Run],
    target: Path,
    *,
    work_dir: Path,
    settings: GlmSettings | None = None,
    context: Mapping[str, Any] | None = None,
) -> None:
    """Write the page of one participant.

    A run that cannot be read is left out, and the page says why.

    Parameters
    ----------
    real : sequence of Run
        The participant's real runs; may be empty for a new, simulated one.
    synthetic : sequence of Run
        Its synthetic runs, at least one.
    target : Path
        ``sub-<label>.html``; it appears only when complete.
    work_dir : Path
        Directory for the cache of first-level results, shared with `evaluate`.
    settings : GlmSettings or None
        Settings of the first-level model; those of `evaluate`, whose results are read again.
    context : mapping, optional
        ``dataset`` and ``role`` (str), ``notices`` (sequence of str).
    """
    context = context or {}
    first = (real or synthetic)[0]
    grid = Grid(first.affine, first.shape)
    records, skipped = summarise_usable_runs(
        [*real, *synthetic],
        grid,
        work_dir=work_dir,
        settings=settings,
        progress=False,
    )
    sources = {
        "real": [record for record in records[: len(real)] if record is not None],
        "synthetic": [record for record in records[len(real) :] if record is not None],
    }
    page = (
        environment()
        .get_template("participant.html")
        .render(
            title=f"sub-{first.participant}",
            dataset=context.get("dataset", ""),
            role=context.get("role", ""),
            notices=list(context.get("notices", ())),
            skipped=skipped,
            mosaics=_mosaics(sources, grid),
            maps=_evoked(sources, grid),
            runs=[_run(record, sources["real"]) for record in sources["synthetic"]],
        )
    )
    write_page(page, target)


def _mosaics(sources: Mapping[str, Sequence[RunRecord]], grid: Grid) -> list[dict[str, Any]]:
    """Draw the mean image and the tSNR of each source, each pair on one scale."""
    sections = []
    shown = {name: records for name, records in sources.items() if records}
    if not shown:
        return []
    tsnr = {name: _mean_on_grid(records, grid, _tsnr) for name, records in shown.items()}
    top = max(float(np.percentile(volume[volume > 0], 99)) for volume in tsnr.values())
    for name, records in shown.items():
        mean = np.asarray(mean_image(records, grid).dataobj)
        drawn = draw_slices(mean, None, grid.affine, limit=1.0)
        sections.append({"label": f"mean image, {name}", "image": drawn.image})
    for name, volume in tsnr.items():
        # Grey is drawn against the volume's own brightest voxels: bring both on one scale.
        drawn = draw_slices(np.clip(volume, 0, top), None, grid.affine, limit=1.0)
        median = float(np.median(volume[volume > 0]))
        sections.append({"label": f"tSNR, {name} (median {median:.0f})", "image": drawn.image})
    return sections


def _evoked(sources: Mapping[str, Sequence[RunRecord]], grid: Grid) -> list[dict[str, Any]]:
    """Draw the participant's effect of each trial type, real beside synthetic."""
    pairs = sorted({(r.run.task, name) for r in sources["synthetic"] for name in r.trial_types})
    if not pairs:
        return []
    background = np.asarray(mean_image(sources["real"] or sources["synthetic"], grid).dataobj)
    sections = []
    for task, trial_type in pairs:
        volumes = {}
        for name, records in sources.items():
            having = [r for r in records if r.run.task == task and trial_type in r.trial_types]
            if having:
                volumes[name] = _mean_on_grid(having, grid, lambda r, t=trial_type: _effect(r, t))
        reference = volumes.get("real", volumes["synthetic"])
        strong = np.abs(reference[reference != 0])
        limit = float(np.percentile(strong, 99.5)) if strong.size else 1.0
        strips = []
        for name, volume in volumes.items():
            drawn = draw_slices(
                background, volume, grid.affine, limit=limit or 1.0, threshold=0.3 * limit
            )
            strips.append({"label": name, "image": drawn.image, "heights": drawn.heights})
        sections.append({"name": f"{task}: {trial_type}", "limit": limit, "strips": strips})
    return sections


def _run(record: RunRecord, real: Sequence[RunRecord]) -> dict[str, Any]:
    """Draw one synthetic run beside the real run that it imitates."""
    run = record.run
    table = read_events(run.events)
    events: dict[str, list[tuple[float, float]]] = {n: [] for n in sorted(set(table["trial_type"]))}
    for trial_type, onset, duration in zip(
        table["trial_type"], table["onset"], table["duration"], strict=True
    ):
        events[trial_type].append((float(onset), float(duration)))
    partner = _partner(record, real)
    shown = {"real": partner, "synthetic": record} if partner else {"synthetic": record}
    series = {name: r.array("supervoxel_series") for name, r in shown.items()}
    limit = 2.0 * float(np.std(next(iter(series.values()))))
    length = run.duration
    return {
        "label": run.label,
        "limit": limit,
        "timeline": Markup(drawings.draw_timeline(events, length, f"Events of {run.label}"))
        if events
        else "",
        "carpets": [
            {
                "label": name,
                "image": draw_carpet(rows, limit=limit),
                "sd": shown[name].temporal_sd,
                "lag1": float(shown[name].autocorrelation[0]),
                "fwhm": float(np.nanmean(shown[name].fwhm)),
            }
            for name, rows in series.items()
        ],
    }


def _partner(record: RunRecord, real: Sequence[RunRecord]) -> RunRecord | None:
    """Find the real run with most entities in common, of the same task."""
    entities = set(record.run.entities.items())
    same = [r for r in real if r.run.task == record.run.task]
    return max(same, key=lambda r: len(entities & set(r.run.entities.items())), default=None)


def _mean_on_grid(records: Sequence[RunRecord], grid: Grid, values_of: Any) -> np.ndarray:
    total, count = np.zeros(grid.shape), np.zeros(grid.shape)
    for record in records:
        mask = record.array("mask")
        total[mask] += values_of(record)
        count += mask
    return total / np.maximum(count, 1)


def _tsnr(record: RunRecord) -> np.ndarray:
    return 100.0 / np.maximum(record.array("sd"), 1e-3)


def _effect(record: RunRecord, trial_type: str) -> np.ndarray:
    return record.array("effects")[record.trial_types.index(trial_type)]
