"""Hold the result of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np

from fmrisynth.evaluation.cohort.conditions import Conditions
from fmrisynth.evaluation.measures.copying import CopyAudit
from fmrisynth.evaluation.measures.networks import Networks
from fmrisynth.evaluation.measures.timecourses import TimeCourse
from fmrisynth.evaluation.metrics.estimate import Estimates
from fmrisynth.evaluation.runs.records import RunRecord

__all__ = ["Evaluation", "Spectra"]


@dataclass(frozen=True)
class Spectra:
    """Mean spectrum, autocorrelation and smoothness of one source's runs.

    Attributes
    ----------
    spectrum : ndarray of shape (24,)
        Share of the power along the band.
    autocorrelation : ndarray of shape (5,)
        Lags 1 to 5.
    fwhm : ndarray of shape (n_runs,)
        Smoothness of each run, in mm.
    temporal_sd : ndarray of shape (n_runs,)
        Median temporal standard deviation of each run, in percent.
    """

    spectrum: np.ndarray
    autocorrelation: np.ndarray
    fwhm: np.ndarray
    temporal_sd: np.ndarray


@dataclass(frozen=True)
class Evaluation:
    """Hold everything that the report shows.

    Attributes
    ----------
    estimates : mapping
        Source → row of the table → Estimate, in the order of the table.
    conditions : Conditions
        Headline conditions and their trial types.
    generators : tuple of str
        Names of the generators, the one under test first.
    held_out, training : tuple of str
        Labels of the real participants that were compared with, and of those
        behind the ceilings.
    notices : tuple of str
        What a reader must know before any estimate.
    mask : Nifti1Image
        Common mask.
    background : Nifti1Image
        Mean image of the real runs.
    maps : mapping
        Source → group maps of the conditions, shape (C, V), percent signal change.
    trial_type_maps : mapping
        Source → group maps of the trial types, shape (K, V).
    contrast_maps : mapping
        Source → group maps of the user's contrasts (``conditions.contrasts``), shape (M, V).
    z_maps, contrast_z_maps : mapping
        Source → second-level z-maps over participants (one-sample, nilearn) of
        the conditions, (C, V), and of the contrasts, (M, V); NaN where there
        are fewer than two participants.
    rdms, identification : mapping
        Source → ndarray of shape (C, C).
    time_courses : tuple of TimeCourse
        One for each condition that could be measured.
    spectra : mapping
        Source → Spectra.
    nyquist : float or None
        Nyquist frequency in Hz, when all runs share it.
    networks : mapping
        Source → Networks.
    copying : mapping
        Generator → CopyAudit; empty without training or held-out participants.
    participant_maps : mapping
        Generator → partial correlation of each synthetic participant (rows)
        with each real one, and ``real`` → one half of the real runs with the other.
    feature_maps : mapping
        Generator, and `TRAINING` as control → kind of features of the classifier → ndarray of
        shape (V,): by how many standard deviations its runs differ from the real held-out ones in
        the parcel of each voxel, NaN outside of parcels. Empty with too few supervoxels.
    records : mapping
        Source → the runs that were compared.
    settings : mapping
        What the comparison was made with, for the report.
    skipped : mapping
        BOLD image of each run that could not be used → why.
    """

    estimates: Mapping[str, Estimates]
    conditions: Conditions
    generators: tuple[str, ...]
    held_out: tuple[str, ...]
    training: tuple[str, ...]
    notices: tuple[str, ...]
    mask: nib.Nifti1Image
    background: nib.Nifti1Image
    maps: Mapping[str, np.ndarray]
    trial_type_maps: Mapping[str, np.ndarray]
    contrast_maps: Mapping[str, np.ndarray]
    z_maps: Mapping[str, np.ndarray]
    contrast_z_maps: Mapping[str, np.ndarray]
    rdms: Mapping[str, np.ndarray]
    identification: Mapping[str, np.ndarray]
    time_courses: tuple[TimeCourse, ...]
    spectra: Mapping[str, Spectra]
    nyquist: float | None
    networks: Mapping[str, Networks]
    copying: Mapping[str, CopyAudit]
    participant_maps: Mapping[str, np.ndarray]
    feature_maps: Mapping[str, Mapping[str, np.ndarray]]
    records: Mapping[str, tuple[RunRecord, ...]]
    settings: Mapping[str, object] = field(default_factory=dict)
    skipped: Mapping[Path, str] = field(default_factory=dict)
