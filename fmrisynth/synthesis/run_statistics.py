"""Read runs, and reduce each to what it says of its participant.

A synthetic run is like its participant's other runs. What those say is kept in files, which are
small: many samples, or further calls with the same work folder, encode no run twice.

Legend: N frames, K regressors, D latent values of a frame inside the brain.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from fmrisynth.bids.dataset import Run
from fmrisynth.bids.events import read_events
from fmrisynth.bids.images import load_bold
from fmrisynth.errors import ModelError
from fmrisynth.model.codec import encode_run
from fmrisynth.model.individuals import Evidence, IndividualInference
from fmrisynth.model.model import Model
from fmrisynth.model.noise.protocol import RunNoise, VoxelNoise
from fmrisynth.model.run_statistics import run_statistics
from fmrisynth.preprocess.cache import run_key
from fmrisynth.preprocess.carrier import Carrier, split
from fmrisynth.preprocess.design import own_regressors
from fmrisynth.preprocess.grid import resample
from fmrisynth.runtime.files import write_arrays
from fmrisynth.synthesis.autocorrelation import voxel_fwhm, voxel_lag1
from fmrisynth.synthesis.regions import region_share

__all__ = ["RunStatistics", "SiblingReader"]

log = logging.getLogger(__name__)

OF_NOISE = ("courses", "remainder", "remainder_lags")  # tensors of a `RunNoise`, in its order
OF_VOXELS = "lag1, fwhm, regions"  # of a `VoxelNoise`


@dataclass(frozen=True)
class RunStatistics:
    """Hold what one run says of its participant.

    Attributes
    ----------
    response : Evidence
        Of the response's individual parameters.
    noise : RunNoise or None
        Of its noise; None where the noise model holds no individual differences.
    """

    response: Evidence
    noise: RunNoise | None

    def save(self, path: Path) -> None:
        """Write the file of a cache."""
        arrays = {"moments": self.response.moments, "scores": self.response.scores}
        if self.noise is not None:
            arrays |= {name: getattr(self.noise, name) for name in OF_NOISE}
            if (voxels := self.noise.voxels) is not None:
                arrays |= {OF_VOXELS: torch.tensor([voxels.lag1, *voxels.fwhm, voxels.regions])}
        write_arrays(path, {n: a.cpu().numpy() for n, a in arrays.items()}, durable=False)

    @classmethod
    def load(cls, path: Path) -> RunStatistics | None:
        """Read the file of a cache; None where there is none that can be read."""
        try:
            with np.load(path) as file:
                arrays = {name: torch.from_numpy(file[name]) for name in file.files}
            response = Evidence(arrays["moments"], arrays["scores"])
        except (OSError, ValueError, KeyError, EOFError):
            return None
        noise = None
        if arrays.keys() >= set(OF_NOISE):
            courses, remainder, lags = (arrays[name] for name in OF_NOISE)
            noise = RunNoise(courses, remainder, lags)
            if OF_VOXELS not in arrays:  # of a version that measured less
                return None
            lag1, x, y, z, regions = arrays[OF_VOXELS].tolist()
            noise = replace(noise, voxels=VoxelNoise(lag1, (x, y, z), regions))
        return cls(response, noise)


class SiblingReader:
    """Read the carriers of runs, and their statistics where these are wanted.

    Parameters
    ----------
    model : Model
        The trained parts, on their device.
    inference : IndividualInference or None
        Of the model's response; None where no statistics are wanted.
    folder : pathlib.Path or None
        Folder of the cache; None for no cache.
    """

    def __init__(
        self, model: Model, inference: IndividualInference | None, folder: Path | None
    ) -> None:
        self.model, self.inference = model, inference
        self.folder = None if folder is None else folder / f"statistics-{model.info.digest}"

    def read(self, run: Run) -> tuple[Carrier, RunStatistics | None]:
        """Read a run; keep its carrier, which is a few volumes in size, and its statistics.

        Returns
        -------
        carrier : Carrier
        statistics : RunStatistics or None
            None where none are wanted, or the run has events that the model has not learned.

        Raises
        ------
        DataError
            The run cannot be read.
        """
        preprocess = self.model.info.config.preprocess
        bold = load_bold(run, brain_only=True)
        evoked = own_regressors(run, bold.data.shape[3], preprocess.high_pass)
        carrier, residual = split(bold, preprocess.high_pass, evoked, overwrite=True)
        if self.inference is None or evoked is None:
            return carrier, None
        path = None
        if self.folder is not None:
            path = self.folder / f"{run_key(run, self.model.grid, preprocess)}.npz"
            if known := RunStatistics.load(path):
                return carrier, known
        try:
            statistics = self._reduce(run, carrier, residual, self.inference)
        except ModelError as error:
            log.info("%s says nothing of its participant: %s", run.bold.name, error)
            return carrier, None
        if path is not None:
            statistics.save(path)
        return carrier, statistics

    @torch.no_grad()
    def _reduce(
        self,
        run: Run,
        carrier: Carrier,
        residual: np.ndarray,
        inference: IndividualInference,
    ) -> RunStatistics:
        """Encode a run, and compute its statistics as in training."""
        model, config = self.model, self.model.info.config
        vocabulary, grid = model.info.vocabulary, model.grid
        events = read_events(run.events, duration=run.duration)
        vocabulary.check(run.task, events, str(run.events))
        design = vocabulary.design(run, events, run.n_volumes, config.preprocess.high_pass)

        def on_grid(data: np.ndarray) -> np.ndarray:
            moved = resample(data, carrier.affine, grid.affine, grid.shape)
            moved[~grid.mask] = 0
            return moved

        frames = np.moveaxis(on_grid(residual), 3, 0)
        raw = torch.from_numpy(encode_run(model.autoencoder, frames, model.info.scale, grid.mask))
        mask = model.latent_space.mask
        latents = model.latent_space.standardise(raw.to(mask.device))
        level = model.noise_level.of_latents(on_grid(carrier.noise_sd))
        regressors = design.evoked.reshape(len(frames), -1)
        moments, products = run_statistics(
            regressors,
            latents[..., mask].flatten(1).cpu().numpy(),
            level[mask].cpu().numpy(),
            model.response.prior.autocovariance.cpu().numpy(),
        )
        median = np.median(carrier.mean[carrier.mask])
        mean = torch.from_numpy(on_grid(carrier.mean / median)).to(mask.device)
        expected = model.response.expectation(mean).flatten(0, 1)  # K C x y z
        known = expected[..., mask].flatten(1).double().cpu().numpy()
        rest = torch.from_numpy(products - moments @ known)
        evoked = torch.from_numpy(regressors).to(expected)
        noise = (latents - torch.tensordot(evoked, expected, dims=1)) / level
        of_noise = model.noise.statistics(noise)
        if of_noise is not None:
            series = residual[carrier.mask].T
            edges = np.linalg.norm(carrier.affine[:3, :3], axis=0)
            fwhm = voxel_fwhm(series, regressors, carrier.mask, edges)
            deviation = carrier.noise_sd[carrier.mask]
            regions = region_share(series, regressors, deviation, carrier.mask, edges)
            voxels = VoxelNoise(voxel_lag1(series, regressors), fwhm, regions)
            of_noise = replace(of_noise, voxels=voxels)
        return RunStatistics(inference.evidence(torch.from_numpy(moments), rest), of_noise)
