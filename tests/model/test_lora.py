"""An adapter in peft's files must compute here what it computes in peft; amplification must follow its formula."""

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from safety_regions.errors import StudyError
from safety_regions.model.lora import added, amplification, read_adapter
from tests.oracles import lora as oracle
from tests.tiny import FAMILIES, tiny_backbone, tiny_model
from tests.training.adapters import write_adapter

IDS = torch.randint(0, 256, (2, 11), generator=torch.Generator().manual_seed(0))


def logits(model, dtype=torch.float32) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits.to(dtype)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_added_adapter_computes_what_peft_computes(family, dtype, tmp_path):
    backbone = tiny_backbone(family, dtype=dtype)
    write_adapter(backbone, tmp_path, use_rslora=family == "qwen2")
    before = logits(backbone.model)
    with added(read_adapter(backbone, tmp_path)):
        found = logits(backbone.model)
    expected = logits(PeftModel.from_pretrained(tiny_model(family, dtype=dtype), tmp_path).eval())
    assert torch.equal(found, expected)
    assert not torch.allclose(found, before, rtol=0.01)
    assert torch.equal(logits(backbone.model), before)


@pytest.mark.parametrize("family", ["llama3", "phi3"])
@pytest.mark.parametrize("beta", [0.0, 0.4, 0.9])
def test_amplified_is_beyond_the_adapted_model(family, beta, tmp_path):
    """The model with the adapter added at 1 + beta must have the weights (1 + beta) W_a - beta W_0."""
    backbone = tiny_backbone(family)
    write_adapter(backbone, tmp_path)
    with added(read_adapter(backbone, tmp_path), amplification("product", beta)):
        found = logits(backbone.model)
    start, adapted = oracle.merged(backbone, tmp_path, 0.0), oracle.merged(backbone, tmp_path, 1.0)
    for weight, own in zip(adapted.parameters(), start.parameters(), strict=True):
        weight.copy_((1 + beta) * weight - beta * own)
    torch.testing.assert_close(found, logits(adapted), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("beta", [0.3, 0.9])
def test_amplifying_both_factors_amplifies_their_product_twice(beta, tmp_path):
    backbone = tiny_backbone("llama")
    write_adapter(backbone, tmp_path)
    adapter = read_adapter(backbone, tmp_path)
    grown = [lora._replace(a=2 * beta * lora.a, b=2 * beta * lora.b) for lora in adapter]
    with added(grown):
        expected = logits(backbone.model)
    with added(adapter, amplification("factors", beta)):
        torch.testing.assert_close(logits(backbone.model), expected, rtol=1e-4, atol=1e-5)


def test_an_adapter_of_some_layers_has_only_their_addresses(tmp_path):
    backbone = tiny_backbone("llama")
    write_adapter(backbone, tmp_path, target_modules=["q_proj", "down_proj"])
    expected = [f"layers.{layer}.{projection}.A" for layer in range(3) for projection in ("q", "down")]
    assert [lora.address for lora in read_adapter(backbone, tmp_path)] == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes,message",
    [
        ({"use_dora": True}, "use_dora"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
        ({"bias": "all"}, "bias all"),
        ({"peft_type": "IA3"}, "peft_type IA3"),
    ],
)
def test_settings_that_compute_something_else_are_refused(changes, message, tmp_path):
    backbone = tiny_backbone("llama")
    write_adapter(backbone, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | changes))
    with pytest.raises(StudyError, match=message):
        read_adapter(backbone, tmp_path)


def test_an_adapter_of_another_backbone_is_refused(tmp_path):
    write_adapter(tiny_backbone("phi3"), tmp_path / "names")
    write_adapter(tiny_backbone("qwen3"), tmp_path / "shapes")
    write_adapter(tiny_backbone("llama", num_hidden_layers=4), tmp_path / "layers")
    backbone = tiny_backbone("llama")
    told = {
        "names": "12 tensors of other layers",
        "shapes": "layers.0.q.A",
        "layers": "14 tensors of other layers",
    }
    for name, message in told.items():
        with pytest.raises(StudyError, match=message):
            read_adapter(backbone, tmp_path / name)


def without_alpha(folder):
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    del config["lora_alpha"]
    path.write_text(json.dumps(config))


def edit_keys(edit):
    def change(folder):
        tensors = load_file(folder / "adapter_model.safetensors")
        save_file(edit(tensors), folder / "adapter_model.safetensors")

    return change


HALF = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"
# What is done to a good adapter -> what the error says.
DAMAGED = {
    "no alpha": (without_alpha, "no number `lora_alpha`"),
    "half a pair": (
        edit_keys(lambda tensors: {k: t for k, t in tensors.items() if k != HALF}),
        r"one factor without the other in 1 layers, e.g. .*q_proj.lora_A",
    ),
    "named": (
        edit_keys(lambda tensors: {k.replace(".weight", ".mine.weight"): t for k, t in tensors.items()}),
        r"the name of an adapter in the keys, e.g. .*lora_A.mine.weight",
    ),
    "a list": (lambda folder: (folder / "adapter_config.json").write_text("[]"), "holds no JSON object"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_adapter_is_named(case, tmp_path):
    backbone, (damage, message) = tiny_backbone("llama"), DAMAGED[case]
    damage(write_adapter(backbone, tmp_path))
    with pytest.raises(StudyError, match=message):
        read_adapter(backbone, tmp_path)


def test_the_log_says_which_part_an_adapter_covers(tmp_path, capsys):
    backbone = tiny_backbone("llama")
    write_adapter(backbone, tmp_path, target_modules=["q_proj", "down_proj"])
    read_adapter(backbone, tmp_path)
    assert "6 of 21 linear layers" in capsys.readouterr().out


@pytest.mark.parametrize("value,message", [(0.0, "before its first step"), (float("nan"), "not finite")])
def test_factors_that_say_nothing_are_refused(value, message, tmp_path):
    backbone = tiny_backbone("llama")
    write_adapter(backbone, tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    changed = {key: torch.full_like(t, value) if "lora_B" in key else t for key, t in tensors.items()}
    save_file(changed, tmp_path / "adapter_model.safetensors")
    with pytest.raises(StudyError, match=message):
        read_adapter(backbone, tmp_path)


@pytest.mark.parametrize("content", [None, b"", b"{}"])
def test_what_is_no_adapter_is_refused(content, tmp_path):
    if content is not None:
        (tmp_path / "adapter_model.safetensors").write_bytes(content)
        (tmp_path / "adapter_config.json").write_bytes(content)
    with pytest.raises(StudyError, match=r"adapter_model.safetensors and adapter_config.json"):
        read_adapter(tiny_backbone("llama"), tmp_path)
