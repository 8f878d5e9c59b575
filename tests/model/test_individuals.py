"""Individual differences: closed forms hold, evidence adds up, draws have the right variance."""

import pytest
import torch

from fmrisynth.model.individuals import FAMILIES, IndividualInference, IndividualPrior

TYPES, RANK, CHANNELS, FIELDS, MODES = 3, 2, 2, 3, 4
MASK = torch.ones(3, 3, 2, dtype=torch.bool)
MASK[0, 0] = False
K, D = 2 * TYPES, CHANNELS * int(MASK.sum())
SD = torch.tensor([0.3, 0.2, 0.5, 2.0])


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make(*, sd=SD, remainder=0.0, noise_factor=1.0):
    """Inference with a prior whose every number was drawn."""
    prior = IndividualPrior(FIELDS, TYPES, RANK, CHANNELS, MASK)
    prior.fields.copy_(random(*prior.fields.shape, seed=1) * MASK)
    prior.gradients.copy_(0.2 * random(*prior.gradients.shape, seed=2) * MASK)
    prior.noise_modes[:MODES] = random(MODES, *prior.noise_modes.shape[1:], seed=3) * MASK
    prior.noise_variance.copy_(0.5 + random(*prior.noise_variance.shape, seed=4).square())
    prior.sd.copy_(sd)
    prior.remainder.fill_(remainder)
    prior.noise_factor.fill_(noise_factor)
    maps = random(RANK, CHANNELS, *MASK.shape, seed=6) * MASK
    return IndividualInference(prior, random(TYPES, 2, RANK, seed=5), maps)


def moments_of(seed, n_frames=20):
    x = random(n_frames, K, seed=seed).double()
    return x.T @ x


def flat(deviation):
    """Coefficients of the regressors, (K, D)."""
    return deviation[..., MASK].flatten(2).flatten(0, 1).double()


def explicit(inference):
    """H as one deviation per parameter, (n, K, D), and Σ⁻¹ (D, D)."""
    n = sum(inference.sizes)
    h = torch.stack([flat(inference.deviation(row)) for row in torch.eye(n).double()])
    prior = inference.prior
    modes = prior.noise_modes[..., MASK].flatten(1).double()
    covariance = modes.T @ modes + prior.noise_variance[:, MASK].flatten().double().diag()
    return h, torch.linalg.inv(covariance)


def test_information_and_scores_are_those_of_the_linear_model():
    inference = make()
    h, precision = explicit(inference)
    moments, residual = moments_of(7), random(K, D, seed=8).double()
    information = torch.einsum("ikd,kl,jle,de->ij", h, moments, h, precision)
    torch.testing.assert_close(
        inference.information(moments), information, rtol=1e-4, atol=1e-4 * information.abs().max()
    )
    scores = torch.einsum("ikd,ke,de->i", h, residual, precision)
    found = inference.evidence(moments, residual)
    torch.testing.assert_close(found.scores, scores, rtol=1e-4, atol=1e-4)


def test_the_posterior_is_the_best_linear_unbiased_prediction():
    """The same as Gaussian conditioning on the effects of all regressors at all latents."""
    inference = make(noise_factor=2.0)
    h, precision = explicit(inference)
    moments = moments_of(7)
    truth = inference.posterior(None).draw(torch.Generator().manual_seed(1))
    residual = moments @ torch.einsum("i,ikd->kd", truth, h)
    posterior = inference.posterior(inference.evidence(moments, residual))
    omega = (SD.double() ** 2)[inference.families()].diag()
    flat_h = h.flatten(1).T  # K·D n
    noise = 2.0 * torch.kron(torch.linalg.inv(moments), torch.linalg.inv(precision))
    gain = omega @ flat_h.T @ torch.linalg.inv(flat_h @ omega @ flat_h.T + noise)
    torch.testing.assert_close(posterior.mean, gain @ flat_h @ truth, rtol=1e-3, atol=1e-3)
    covariance = omega - gain @ flat_h @ omega
    torch.testing.assert_close(posterior.variance, covariance.diagonal(), rtol=1e-3, atol=1e-4)


def test_without_runs_nobody_is_known_and_draws_have_the_variance_of_the_prior():
    inference = make(remainder=0.5)
    nobody = inference.posterior(None)
    assert not nobody.mean.any()
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([nobody.draw(generator) for _ in range(2000)])
    for number, name in enumerate(FAMILIES):
        chosen = drawn[:, inference.families() == number]
        expected = float(SD[number] * 1.5**0.5)
        assert float(chosen.std()) == pytest.approx(expected, rel=0.06), name
    assert float(drawn.mean(0).abs().max()) < 0.2


def test_draws_scatter_about_what_is_known_as_the_posterior_says():
    inference = make()
    evidence = inference.evidence(0.2 * moments_of(7), random(K, D, seed=8).double())
    posterior = inference.posterior(evidence)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([posterior.draw(generator) for _ in range(4000)])
    error = (drawn.mean(0) - posterior.mean) / (posterior.variance / 4000).sqrt()
    assert float(error.abs().max()) < 4.5
    torch.testing.assert_close(drawn.var(0), posterior.variance, rtol=0.15, atol=1e-4)


def test_what_more_runs_say_is_less_uncertain_and_nearer_to_the_truth():
    inference = make()
    truth = inference.posterior(None).draw(torch.Generator().manual_seed(3))
    h, precision = explicit(inference)
    root = torch.linalg.cholesky(torch.linalg.inv(precision))
    evidence, errors, spreads = None, [], []
    for run in range(3):
        x = random(40 * 4**run, K, seed=run).double()
        z = x @ torch.einsum("i,ikd->kd", truth, h) + random(len(x), D, seed=9).double() @ root.T
        one = inference.evidence(x.T @ x, x.T @ z)
        evidence = one if evidence is None else evidence + one
        posterior = inference.posterior(evidence)
        errors.append(float(((posterior.mean - truth) / posterior.sd).square().mean()))
        spreads.append(float((posterior.variance / posterior.sd**2).mean()))
    assert spreads[0] > spreads[1] > spreads[2]
    assert errors[2] < errors[0]
    assert errors[2] < 0.3


def test_a_draw_repeats_and_a_little_evidence_moves_it_a_little():
    """All synthetic runs of a participant have one draw, though each leaves out another run."""
    inference = make(remainder=0.3)

    def draw(evidence, seed=5):
        return inference.posterior(evidence).draw(torch.Generator().manual_seed(seed))

    assert torch.equal(draw(None), draw(None))
    assert not torch.equal(draw(None), draw(None, seed=6))
    slight = inference.evidence(1e-6 * moments_of(7), torch.zeros(K, D))
    torch.testing.assert_close(draw(slight), draw(None), rtol=0, atol=1e-2)


def test_no_deviation_lies_outside_the_brain_and_latency_alone_changes_derivatives():
    inference = make()
    n = sum(inference.sizes)
    for row, family in zip(torch.eye(n).double(), inference.families(), strict=True):
        deviation = inference.deviation(row)
        assert not deviation[..., ~MASK].any()
        of_latency = FAMILIES[int(family)] == "latency"
        assert bool(deviation[:, 1].any()) == of_latency
        assert bool(deviation[:, 0].any()) != of_latency


def test_without_fields_there_is_nothing_to_know():
    prior = IndividualPrior(0, TYPES, RANK, CHANNELS, MASK)
    assert not prior.present
    assert prior.gradients.numel() == 0
    assert prior.noise_modes.numel() == 0
