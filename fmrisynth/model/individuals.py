"""Describe how participants' responses differ, and infer a participant's own from its runs.

To what the response model predicts for a participant's coefficients of the regressors, random
fields that are smooth in space add

    HRF:        (g_v(p) + g(p)) · G_v(p) + Σ_a d_a(p) · ∂_a G_v(p)
    derivative: l(p) · G_v(p)

with G_v the group's map of trial type v: a gain g_v of one trial type and g of all of them, a
displacement d (mm), since areas lie elsewhere in other brains, and a latency l (s). A field is
Σ_b x_b φ_b(p), with φ_b the principal components of a smooth Gaussian field and x_b ~ N(0, sd²).

Given runs with the statistics XᵀV⁻¹X and XᵀV⁻¹Z, whose noise has the covariance κ·Σ over latents,
the parameters x are Gaussian with (best linear unbiased prediction, Robinson 1991)

    covariance (Ω⁻¹ + F/κ)⁻¹,  mean covariance · s/κ,
    F = Hᵀ (XᵀV⁻¹X ⊗ Σ⁻¹) H,   s = Hᵀ Σ⁻¹ (XᵀV⁻¹Z − XᵀV⁻¹X · prediction),

where H turns parameters into coefficients. Without runs this is the prior N(0, Ω).

Legend: V trial types, K = 2V regressors (HRF and derivative of each), J maps, B fields, of which
the gains of single trial types have the first B', C channels, P latent voxels of the brain,
D = C·P, n = V·B' + 5·B parameters, L noise modes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["FAMILIES", "Evidence", "IndividualInference", "IndividualPrior", "Posterior"]

FAMILIES = ("condition gain", "gain", "latency", "displacement")
MAXIMUM_GAINS = 640  # parameters of the gains of single trial types, at most
NOISE_MODES = 64
ORDER = 8  # lags of the noise's autocovariance


class IndividualPrior(nn.Module):
    """Hold the distribution of the individual differences; nobody's own are in it.

    Parameters
    ----------
    n_fields : int
        B; 0 for no individual differences.
    n_trial_types, rank, channels : int
        V, J, C.
    mask : Tensor of shape (x, y, z), bool
        Latent voxels that hold brain.

    Attributes
    ----------
    fields : Tensor of shape (B, x, y, z)
        φ, in order of their variance; their squares add up to about 1 at each voxel.
    gradients : Tensor of shape (3, J, C, x, y, z)
        ∂ of the synthetic group maps along the axes of the grid, per mm.
    sd : Tensor of shape (4,)
        Standard deviation of the parameters of `FAMILIES`.
    noise_modes : Tensor of shape (L, C, x, y, z)
        Σ = modesᵀ · modes + diag(noise_variance), of standardised latents.
    noise_variance : Tensor of shape (C, x, y, z)
    noise_factor : Tensor of shape ()
        κ: what a run's response differs by beyond noise counts as noise as well.
    remainder : Tensor of shape ()
        Variance of the differences that these fields do not hold, over that of the prior. It is
        drawn as if they held it, whatever is known of a participant.
    autocovariance : Tensor of shape (ORDER + 1,)
        Of the noise over frames, which V has.
    """

    mask: Tensor
    fields: Tensor
    gradients: Tensor
    sd: Tensor
    noise_modes: Tensor
    noise_variance: Tensor
    noise_factor: Tensor
    remainder: Tensor
    autocovariance: Tensor

    def __init__(
        self, n_fields: int, n_trial_types: int, rank: int, channels: int, mask: Tensor
    ) -> None:
        super().__init__()
        shape = tuple(mask.shape)
        self.n_gain_fields = min(n_fields, max(1, MAXIMUM_GAINS // max(1, n_trial_types)))
        modes = NOISE_MODES if n_fields else 0
        self.register_buffer("mask", mask.bool(), persistent=False)
        self.register_buffer("fields", torch.zeros(n_fields, *shape))
        size = rank if n_fields else 0
        self.register_buffer("gradients", torch.zeros(3, size, channels, *shape))
        self.register_buffer("sd", torch.zeros(len(FAMILIES)))
        self.register_buffer("noise_modes", torch.zeros(modes, channels, *shape))
        self.register_buffer("noise_variance", torch.ones(channels, *shape))
        self.register_buffer("noise_factor", torch.ones(()))
        self.register_buffer("remainder", torch.zeros(()))
        self.register_buffer("autocovariance", torch.eye(1, ORDER + 1)[0])

    @property
    def present(self) -> bool:
        """Whether participants differ at all."""
        return bool(self.sd.any())


@dataclass(frozen=True)
class Evidence:
    """Hold what some runs of a participant say of its parameters; runs add up.

    Attributes
    ----------
    moments : Tensor of shape (K, K)
        XᵀV⁻¹X / level².
    scores : Tensor of shape (n,)
        s.
    """

    moments: Tensor
    scores: Tensor

    def __add__(self, other: Evidence) -> Evidence:
        """Combine independent runs."""
        return Evidence(self.moments + other.moments, self.scores + other.scores)


@dataclass(frozen=True)
class Posterior:
    """Describe what is known of a participant's parameters.

    Attributes
    ----------
    mean : Tensor of shape (n,)
    sd : Tensor of shape (n,)
        Of the prior.
    factor : Tensor of shape (n, n)
        Cholesky factor of I + sd · F/κ · sd, lower triangular.
    remainder : float
        Variance that is never known, over that of the prior.
    """

    mean: Tensor
    sd: Tensor
    factor: Tensor
    remainder: float

    def draw(self, generator: torch.Generator) -> Tensor:
        """Draw parameters (n,): what is known, and one of the participants that it leaves open."""
        standard = torch.randn(2, len(self.mean), generator=generator, dtype=torch.float64)
        uncertain = torch.linalg.solve_triangular(self.factor.T, standard[:1].T, upper=True)
        return self.mean + self.sd * (uncertain[:, 0] + self.remainder**0.5 * standard[1])

    @property
    def variance(self) -> Tensor:
        """Posterior variance of each parameter, (n,)."""
        return self.sd**2 * torch.cholesky_inverse(self.factor).diagonal()


class IndividualInference:
    """Infer parameters from runs, and turn parameters into coefficients.

    Parameters
    ----------
    prior : IndividualPrior
        Fields, noise and variances.
    coefficients : Tensor of shape (V, 2, J)
        Of the group's response.
    maps : Tensor of shape (J, C, x, y, z)
        Of the group's response.
    """

    def __init__(self, prior: IndividualPrior, coefficients: Tensor, maps: Tensor) -> None:
        self.prior, self.mask = prior, prior.mask.cpu()
        self.weights = coefficients[:, 0].double().cpu()  # V J
        everything = torch.cat([maps[None].cpu(), prior.gradients.cpu()])
        self._maps = everything[..., self.mask].double()  # 4 J C P
        self._by_type = torch.einsum("vj,ajcp->avcp", self.weights, self._maps)
        self._fields = prior.fields.cpu()[:, self.mask].double()  # B P
        self._variance = prior.noise_variance.cpu()[:, self.mask].double().flatten()  # D
        self._modes = prior.noise_modes.cpu()[..., self.mask].double().flatten(1)  # L D
        scaled = self._modes / self._variance
        self._inner = torch.eye(len(scaled), dtype=torch.float64) + scaled @ self._modes.T
        self._gram = self._products_of_maps()
        n_gains = prior.n_gain_fields
        own = self._gram[0, :, :n_gains, 0, :, :n_gains]
        self._gain_gram = torch.einsum("vj,jbkc,wk->vbwc", self.weights, own, self.weights)

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Number of parameters of each of `FAMILIES`."""
        n_fields, n_gains = len(self._fields), self.prior.n_gain_fields
        return len(self.weights) * n_gains, n_fields, n_fields, 3 * n_fields

    def families(self) -> Tensor:
        """Return the number in `FAMILIES` of each parameter, (n,) int64."""
        return torch.repeat_interleave(torch.arange(len(FAMILIES)), torch.tensor(self.sizes))

    def _without_noise(self, values: Tensor) -> Tensor:
        """Multiply rows (…, D) by Σ⁻¹ (Woodbury)."""
        scaled = values / self._variance
        inner = torch.linalg.solve(self._inner, (scaled @ self._modes.T).T)
        return scaled - (inner.T @ self._modes) / self._variance

    def _products_of_maps(self) -> Tensor:
        """Multiply all products of map and field with each other, through Σ⁻¹, (4, J, B, 4, J, B).

        In float32, as they are many.
        """
        size = (4, self._maps.shape[1], len(self._fields))
        products = torch.einsum("ajcp,bp->ajbcp", self._maps.float(), self._fields.float())
        flat = products.flatten(0, 2).flatten(1)
        white = flat / self._variance.sqrt().float()
        modes = (self._modes / self._variance.sqrt()).float()
        loads = (white @ modes.T).double()
        known = torch.linalg.solve_triangular(
            torch.linalg.cholesky(self._inner), loads.T, upper=False
        )
        return ((white @ white.T).double() - known.T @ known).view(*size, *size)

    def evidence(self, moments: Tensor, residual: Tensor) -> Evidence:
        """Reduce the statistics of a run to what they say of the parameters.

        Parameters
        ----------
        moments : Tensor of shape (K, K)
            XᵀV⁻¹X / level².
        residual : Tensor of shape (K, D)
            XᵀV⁻¹Z / level², less what the response model predicts of it.
        """
        free = self._without_noise(residual.double()).unflatten(1, self._maps.shape[2:])
        hrf, derivative = free[0::2], free[1::2]  # V C P
        local = torch.cat(
            [(hrf * self._by_type).sum(2), (derivative * self._by_type[0]).sum(1)[None]]
        )  # 5 V P: gain, three axes, latency
        scores = local @ self._fields.T  # 5 V B
        parts = (
            scores[0, :, : self.prior.n_gain_fields].flatten(),
            scores[0].sum(0),
            scores[4].sum(0),
            scores[1:4].sum(1).flatten(),
        )
        return Evidence(moments.double(), torch.cat(parts))

    def information(self, moments: Tensor) -> Tensor:
        """Compute F, (n, n), from XᵀV⁻¹X / level² (K, K)."""
        blocks = {
            (i, k): moments[i::2, k::2].double() for i in (0, 1) for k in (0, 1)
        }  # by HRF and derivative, V V
        shared = ((0, 0), (0, 1), (1, 0), (2, 0), (3, 0))  # kind of map, HRF or derivative
        n_gains, w = self.prior.n_gain_fields, self.weights
        rows = [
            torch.cat(
                [
                    torch.einsum("jk,jbkc->bc", w.T @ blocks[d, e] @ w, self._gram[a, :, :, m])
                    for m, e in shared
                ],
                dim=1,
            )
            for a, d in shared
        ]
        gains = (blocks[0, 0][:, None, :, None] * self._gain_gram).flatten(2).flatten(0, 1)
        cross = torch.cat(
            [
                torch.einsum(
                    "vjk,jbkc->vbc",
                    w[:, :, None] * (blocks[0, e] @ w)[:, None],
                    self._gram[0, :, :n_gains, m],
                ).flatten(0, 1)
                for m, e in shared
            ],
            dim=1,
        )
        below = torch.cat(rows)
        return torch.cat([torch.cat([gains, cross], 1), torch.cat([cross.T, below], 1)])

    def posterior(self, evidence: Evidence | None) -> Posterior:
        """Combine the prior with what runs of a participant say; None for nobody in particular.

        Parameters
        ----------
        evidence : Evidence or None
            Sum over the runs.
        """
        families = self.families()
        sd = self.prior.sd.double().cpu()[families]
        remainder = float(self.prior.remainder)
        if evidence is None:
            known_of_nobody = torch.eye(len(sd), dtype=sd.dtype)
            return Posterior(torch.zeros_like(sd), sd, known_of_nobody, remainder)
        kappa = float(self.prior.noise_factor)
        f = self.information(evidence.moments)
        factor = torch.linalg.cholesky(
            torch.eye(len(sd), dtype=sd.dtype) + sd[:, None] * f * sd / kappa
        )
        scores = (sd * evidence.scores / kappa)[:, None]
        mean = sd * torch.cholesky_solve(scores, factor)[:, 0]
        return Posterior(mean, sd, factor, remainder)

    def deviation(self, parameters: Tensor) -> Tensor:
        """Turn parameters (n,) into deviations of the coefficients, (V, 2, C, x, y, z) float32."""
        condition, gain, latency, displacement = parameters.split(self.sizes)
        n_gains, by_type = self.prior.n_gain_fields, self._by_type
        own = condition.view(len(self.weights), n_gains) @ self._fields[:n_gains]  # V P
        factor = own + gain @ self._fields
        hrf = factor[:, None] * by_type[0]
        shifts = displacement.view(3, -1) @ self._fields  # 3 P
        hrf = hrf + torch.einsum("ap,avcp->vcp", shifts, by_type[1:])
        derivative = (latency @ self._fields) * by_type[0]
        out = torch.zeros(len(hrf), 2, hrf.shape[1], *self.mask.shape)
        out[..., self.mask] = torch.stack([hrf, derivative], 1).float()
        return out
