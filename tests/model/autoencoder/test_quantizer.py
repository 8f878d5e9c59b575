"""The quantiser against plain references, and the codebook's moving average."""

import pytest
import torch

from fmrisynth.model.autoencoder import quantizer as module
from fmrisynth.model.autoencoder.quantizer import CodebookAverage, VectorQuantizer, nearest_code


def make(codes=12, channels=3, *, weight=0.25, gradient=False):
    torch.manual_seed(0)
    quantizer = VectorQuantizer(
        codes, channels, commitment_weight=weight, learn_by_gradient=gradient
    )
    torch.nn.init.normal_(quantizer.embedding.weight)
    return quantizer


def test_the_nearest_code_wins_by_brute_force(monkeypatch):
    monkeypatch.setattr(module, "DISTANCES_AT_ONCE", 100)  # several pieces
    torch.manual_seed(1)
    z, codes = torch.randn(57, 4), torch.randn(33, 4)
    distances = (z[:, None].double() - codes[None].double()).square().sum(-1)
    assert nearest_code(z, codes).tolist() == distances.argmin(1).tolist()


def test_every_latent_becomes_its_code():
    quantizer = make()
    z = torch.randn(2, 3, 4, 3, 5)
    code = quantizer(z)
    for b, x, y, w in [(0, 0, 0, 0), (1, 3, 2, 4), (0, 2, 1, 3)]:
        e = quantizer.embedding.weight[code.indices[b, x, y, w]]
        torch.testing.assert_close(code.z_q[b, :, x, y, w], e)


def test_gradients_pass_straight_through():
    quantizer = make(weight=0.0)
    z = torch.randn(1, 3, 2, 2, 2, requires_grad=True)
    slope = torch.randn(1, 3, 2, 2, 2)
    (quantizer(z).z_q * slope).sum().backward()
    torch.testing.assert_close(z.grad, slope)


@pytest.mark.parametrize("gradient", [False, True])
def test_commitment_weighs_on_the_encoder_and_not_on_the_codes(gradient):
    quantizer = make(weight=0.25, gradient=gradient)
    z = torch.randn(2, 3, 4, 4, 4, requires_grad=True)
    code = quantizer(z)
    code.loss.backward()
    e = quantizer.embedding.weight.detach()[code.indices].movedim(-1, 1)
    torch.testing.assert_close(z.grad, 0.25 * 2 * (z.detach() - e) / z.numel())
    if not gradient:
        assert quantizer.embedding.weight.grad is None
        return
    expected = torch.zeros_like(quantizer.embedding.weight)
    rows = (2 * (e - z.detach()) / z.numel()).movedim(1, -1).reshape(-1, 3)
    expected.index_add_(0, code.indices.flatten(), rows)
    torch.testing.assert_close(quantizer.embedding.weight.grad, expected)


def test_loss_and_statistics_count_the_brain_alone():
    quantizer = make()
    z = torch.randn(2, 3, 4, 4, 4)
    inside = torch.zeros(4, 4, 4, dtype=torch.bool)
    inside[1:3, 1:3, 1:3] = True
    far = z.masked_fill(~inside, 1e3)
    one, other = quantizer(z, inside), quantizer(far, inside)
    torch.testing.assert_close(one.loss, other.loss)
    torch.testing.assert_close(one.perplexity, other.perplexity)
    assert one.usage == other.usage


def test_perplexity_and_usage_of_known_use():
    quantizer = make(codes=8, channels=1)
    with torch.no_grad():
        quantizer.embedding.weight.copy_(torch.arange(8.0)[:, None])
    code = quantizer(torch.tensor([0.0, 1.0, 2.0, 3.0]).reshape(1, 1, 4, 1, 1))
    assert code.perplexity.item() == pytest.approx(4.0)
    assert code.usage.item() == pytest.approx(0.5)


def test_quantising_is_done_in_float32_under_autocast():
    quantizer = make()
    z = torch.randn(1, 3, 4, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        code = quantizer(z.bfloat16())
    assert code.z_q.dtype == code.loss.dtype == torch.float32
    assert code.indices.equal(quantizer(z.bfloat16().float()).indices)


def test_the_codes_follow_the_moving_average():
    quantizer = make(codes=3, channels=2)
    average = CodebookAverage(quantizer, decay=0.9, revive_below=0.0)
    e = quantizer.embedding.weight.detach().clone()
    z, indices = torch.randn(4, 2), torch.tensor([0, 0, 2, 0])
    average.update(z, indices, candidates=z)
    counts = torch.tensor([0.9 + 0.1 * 3, 0.9, 0.9 + 0.1])
    sums = 0.9 * e
    sums[0] += 0.1 * (z[0] + z[1] + z[3])
    sums[2] += 0.1 * z[2]
    torch.testing.assert_close(average.counts, counts)
    torch.testing.assert_close(quantizer.embedding.weight, sums / counts[:, None])


def test_the_codes_converge_on_what_they_win():
    quantizer = make(codes=2, channels=1)
    average = CodebookAverage(quantizer, decay=0.8)
    z = torch.tensor([[-3.0], [-1.0], [4.0], [6.0]])
    for _ in range(60):
        average.update(z, torch.tensor([0, 0, 1, 1]), candidates=z)
    torch.testing.assert_close(
        quantizer.embedding.weight, torch.tensor([[-2.0], [5.0]]), atol=1e-3, rtol=0
    )


def test_dead_codes_are_revived_and_the_living_are_left():
    quantizer = make(codes=6, channels=2)
    average = CodebookAverage(quantizer, decay=0.5, revive_below=0.1)
    z = torch.randn(40, 2)
    indices = torch.arange(40) % 4  # 4 and 5 win nothing
    candidates = torch.tensor([[7.0, 7.0], [8.0, 8.0], [9.0, 9.0]])
    revived = [average.update(z, indices, candidates) for _ in range(8)]
    assert max(revived) == 2
    codes = quantizer.embedding.weight
    assert {tuple(c) for c in codes[4:].tolist()} == {(7.0, 7.0), (8.0, 8.0)}
    assert codes[:4].abs().max() < 5


def test_starting_on_the_data_uses_every_code():
    quantizer = make(codes=16, channels=2)
    torch.manual_seed(2)
    z = 5 + torch.randn(400, 2)
    average = CodebookAverage(quantizer)
    average.start(z, torch.Generator().manual_seed(0))
    indices = nearest_code(z, quantizer.embedding.weight)
    assert len(indices.unique()) == 16
    error = (z - quantizer.embedding.weight[indices]).square().sum(1).mean()
    assert error < 0.35 * (z - z.mean(0)).square().sum(1).mean()


def test_starting_with_fewer_vectors_than_codes():
    quantizer = make(codes=16, channels=2)
    z = torch.randn(5, 2)
    CodebookAverage(quantizer).start(z, torch.Generator().manual_seed(0), rounds=1)
    torch.testing.assert_close(
        z, quantizer.embedding.weight[nearest_code(z, quantizer.embedding.weight)]
    )
