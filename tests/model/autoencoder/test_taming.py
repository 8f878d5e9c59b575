"""Checkpoints in the layout of taming-transformers' VQModel, in 3D."""

import pickle

import pytest
import torch
from safetensors.torch import save_file

from fmrisynth.config.autoencoder import VQGANConfig
from fmrisynth.errors import ModelError
from fmrisynth.model.autoencoder.taming import load_taming_state_dict, read_taming_checkpoint
from fmrisynth.model.autoencoder.vqgan import VQGAN

# written down from the configuration Kim et al. released: (inputs, outputs) of each
# residual block, and name → shape of everything else
KIM_BLOCKS = {
    "encoder.down.0.block.0": (64, 64),
    "encoder.down.1.block.0": (64, 64),
    "encoder.down.2.block.0": (64, 128),
    "encoder.mid.block_1": (128, 128),
    "decoder.mid.block_1": (128, 128),
    "decoder.up.2.block.0": (128, 128),
    "decoder.up.2.block.1": (128, 128),
    "decoder.up.1.block.0": (128, 64),
    "decoder.up.1.block.1": (64, 64),
    "decoder.up.0.block.0": (64, 64),
    "decoder.up.0.block.1": (64, 64),
}
KIM_CONVOLUTIONS = {
    "encoder.conv_in": (64, 1, 3),
    "encoder.down.0.downsample.conv": (64, 64, 3),
    "encoder.down.1.downsample.conv": (64, 64, 3),
    "encoder.conv_out": (4, 128, 3),
    "quant_conv": (4, 4, 1),
    "post_quant_conv": (4, 4, 1),
    "decoder.conv_in": (128, 4, 3),
    "decoder.up.2.upsample.conv": (128, 128, 3),
    "decoder.up.1.upsample.conv": (64, 64, 3),
    "decoder.conv_out": (1, 64, 3),
}
KIM_NORMS = {"encoder.norm_out": 128, "decoder.norm_out": 64}


def kim_shapes():
    shapes = {"quantize.embedding.weight": (8192, 4)}
    convolutions, norms = dict(KIM_CONVOLUTIONS), dict(KIM_NORMS)
    for name, (inputs, outputs) in KIM_BLOCKS.items():
        norms |= {f"{name}.norm1": inputs, f"{name}.norm2": outputs}
        convolutions |= {
            f"{name}.conv1": (outputs, inputs, 3),
            f"{name}.conv2": (outputs, outputs, 3),
        }
        if inputs != outputs:
            convolutions[f"{name}.nin_shortcut"] = (outputs, inputs, 1)
    for name, (outputs, inputs, edge) in convolutions.items():
        shapes |= {
            f"{name}.weight": (outputs, inputs, edge, edge, edge),
            f"{name}.bias": (outputs,),
        }
    for name, width in norms.items():
        shapes |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    return shapes


@pytest.mark.parametrize("quantizer", ["ema", "gradient"])
def test_the_default_network_has_the_published_names_and_shapes(quantizer):
    with torch.device("meta"):
        net = VQGAN(VQGANConfig(quantizer=quantizer))
    assert {k: tuple(t.shape) for k, t in net.state_dict().items()} == kim_shapes()
    assert all(m.num_groups == 32 for m in net.modules() if isinstance(m, torch.nn.GroupNorm))


def test_the_original_middle_has_two_blocks():
    with torch.device("meta"):
        names = VQGAN(VQGANConfig(middle_blocks=2)).state_dict().keys()
    added = {n.rsplit(".", 2)[0] for n in names - kim_shapes().keys()}
    assert added == {"encoder.mid.block_2", "decoder.mid.block_2"}


SMALL = VQGANConfig(base_width=8, norm_groups=4, codebook_size=16)


@pytest.fixture
def checkpoint():
    torch.manual_seed(3)
    return {k: torch.randn_like(t) for k, t in VQGAN(SMALL).state_dict().items()}


def test_a_checkpoint_with_its_discriminator_loads(checkpoint):
    extra = {
        "loss.discriminator.main.0.weight": torch.zeros(1),
        "loss.perceptual_loss.lin0.model.1.weight": torch.zeros(1),
        "spade.conv.weight": torch.zeros(1),
    }
    net = VQGAN(SMALL)
    load_taming_state_dict(net, checkpoint | extra)
    for name, tensor in net.state_dict().items():
        assert tensor.equal(checkpoint[name]), name


def test_what_does_not_fit_is_named(checkpoint):
    del checkpoint["encoder.conv_in.bias"]
    checkpoint["encoder.mid.attn_1.q.weight"] = torch.zeros(1)
    checkpoint["quantize.embedding.weight"] = torch.zeros(32, 4)
    net = VQGAN(SMALL)
    before = {k: t.clone() for k, t in net.state_dict().items()}
    with pytest.raises(ModelError) as caught:
        load_taming_state_dict(net, checkpoint, source="kim.ckpt")
    message = str(caught.value)
    assert "kim.ckpt" in message
    assert "3 tensors differ" in message
    assert "encoder.conv_in.bias is missing" in message
    assert "encoder.mid.attn_1.q.weight is not expected" in message
    assert "quantize.embedding.weight has shape (32, 4), expected (16, 4)" in message
    assert all(t.equal(before[k]) for k, t in net.state_dict().items())


@pytest.mark.parametrize("nested", [True, False])
def test_checkpoints_of_torch_and_safetensors_read_alike(tmp_path, checkpoint, nested):
    torch.save(
        {"state_dict": checkpoint, "epoch": 3} if nested else checkpoint, tmp_path / "a.ckpt"
    )
    save_file(checkpoint, str(tmp_path / "a.safetensors"))
    for name in ("a.ckpt", "a.safetensors"):
        found = read_taming_checkpoint(tmp_path / name)
        assert found.keys() == checkpoint.keys()
        assert all(found[k].equal(t) for k, t in checkpoint.items())


class Payload:
    def __reduce__(self):
        return (print, ("executed",))


def test_nothing_in_a_checkpoint_is_executed(tmp_path, capsys):
    torch.save({"state_dict": {}, "callbacks": Payload()}, tmp_path / "evil.ckpt")
    with pytest.raises(ModelError, match="tensors alone"):
        read_taming_checkpoint(tmp_path / "evil.ckpt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Payload(), protocol=2))
    with pytest.raises(ModelError, match="tensors alone"):
        read_taming_checkpoint(tmp_path / "plain.pt")
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut off"])
def test_damaged_checkpoints_are_an_error_of_the_model(tmp_path, content):
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(ModelError, match=r"a\.pt"):
        read_taming_checkpoint(tmp_path / "a.pt")


def test_missing_checkpoints_and_files_without_weights(tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        read_taming_checkpoint(tmp_path / "none.ckpt")
    torch.save({"epoch": 3}, tmp_path / "empty.ckpt")
    with pytest.raises(ModelError, match="no state_dict"):
        read_taming_checkpoint(tmp_path / "empty.ckpt")
