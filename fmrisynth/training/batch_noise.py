"""Choose the runs of a batch's windows and draw their noise, ahead of the step that needs it.

Drawing is a good part of a small network's step, and uses one core or, beside a GPU, the CPU
alone: it is done while the step before is learned from.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from torch import Tensor

from fmrisynth.training.loop import step_generator
from fmrisynth.training.window_noise import WindowNoise
from fmrisynth.training.windows import Windows

__all__ = ["BatchNoise"]

NOISE_STREAM = 2**30  # of random numbers, apart from those of the windows

Drawn = tuple[dict[int, int], dict[int, Tensor]]


class BatchNoise:
    """Draw the noise of batches, which depends on seed, step and windows' numbers alone.

    Parameters
    ----------
    windows : Windows
        Windows of the training runs.
    noise : WindowNoise
        The diffusion's noise, run by run.
    length : int
        Frames T of a window.
    seed : int
        Seed of everything that is drawn.
    """

    def __init__(self, windows: Windows, noise: WindowNoise, length: int, seed: int) -> None:
        self.windows, self.noise, self.length, self.seed = windows, noise, length, seed
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="noise")
        self._ahead: dict[tuple[int, tuple[int, ...]], Future[Drawn]] = {}

    def draw(self, step: int, indices: Sequence[int]) -> Drawn:
        """Return the noise of some windows of a global batch.

        Neighbours are of one run and have the same noise with opposite signs, which halves the
        work: each is a draw, and what is odd in the noise cancels between them.

        Parameters
        ----------
        step : int
            Number of the training step.
        indices : sequence of int
            Numbers of the windows in the global batch.

        Returns
        -------
        runs : dict of int to int
            Run of each window.
        noises : dict of int to Tensor of shape (T, C, x, y, z)
            Noise of each window, on the CPU.
        """
        ahead = self._ahead.pop((step, tuple(indices)), None)
        return self._draw(step, indices) if ahead is None else ahead.result()

    def mode_sd(self, run: int) -> Tensor:
        """Return the standard deviation of a run's noise along each mode, (1, K)."""
        return self.noise.mode_sd(run)

    def prepare(self, step: int, indices: Sequence[int]) -> None:
        """Begin to draw what will be asked for next; what was prepared and not asked for goes."""
        self._ahead = {
            (step, tuple(indices)): self._thread.submit(self._draw, step, tuple(indices))
        }

    def _draw(self, step: int, indices: Sequence[int]) -> Drawn:
        runs: dict[int, int] = {}
        noises: dict[int, Tensor] = {}
        for index in indices:
            even, odd = index - index % 2, index - index % 2 + 1
            if index in noises:
                continue
            generator = step_generator(self.seed, step, NOISE_STREAM + even)
            run = self.windows.choose(generator)[0]
            drawn = self.noise.draw(run, self.length, generator)
            runs |= {even: run, odd: run}
            noises |= {even: drawn, odd: -drawn}
        return runs, noises
