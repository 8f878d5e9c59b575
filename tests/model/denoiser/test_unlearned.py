"""Values of attributes that no run had: an unknown site, an unknown phase encoding."""

import torch
from support.tiny_model import VOCABULARY, blocks, make_model, make_run, run_condition

from fmrisynth.model.denoiser.conditioning import Vocabulary


def test_an_unknown_value_is_the_mean_of_the_learned_ones():
    encoder = make_model().denoiser.backbone.condition
    embeddings = [m if isinstance(m, torch.nn.Embedding) else m[0] for m in encoder.attributes]
    before = [e.weight.detach().clone() for e in embeddings]
    learned = torch.tensor([[1, 1, 1], [2, 1, 1], [2, 0, 1]])
    encoder.average_unlearned(learned)
    tasks, phases, sites = (e.weight.detach() for e in embeddings)
    torch.testing.assert_close(tasks[0], before[0][1:].mean(0))
    torch.testing.assert_close(tasks[1:], before[0][1:])
    torch.testing.assert_close(phases[:2], before[1][:2])  # unknown was learned
    torch.testing.assert_close(phases[2], before[1][:2].mean(0))
    torch.testing.assert_close(sites[0], before[2][1])  # the only site stands for all


def test_a_run_of_an_unknown_site_is_encoded_like_one_of_the_only_site():
    encoder = make_model().denoiser.backbone.condition
    encoder.average_unlearned(torch.tensor([[1, 1, 1], [2, 2, 1]]))
    pooled = [
        encoder(run_condition(blocks("hand"), site=site).window(0, encoder.n_frames)).pooled
        for site in ("here", "elsewhere")
    ]
    torch.testing.assert_close(*pooled)


def test_sites_are_told_apart_by_a_vocabulary():
    runs = [make_run(site=site) for site in ("A", "B", "unknown")]
    vocabulary = Vocabulary.of(runs, [blocks("hand")] * 3)
    assert vocabulary.sites == ("A", "B")
    assert [vocabulary.attributes(run)[2] for run in runs] == [1, 2, 0]
    assert VOCABULARY.attributes(make_run(site="A"))[2] == 0
