"""Opening a checkpoint: every tensor comes from its files, and a prompt passes through template and tokenizer."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import normalizers

from safety_regions.errors import StudyError
from safety_regions.model.loading import load_backbone, wrap_backbone
from tests.tiny import FAMILIES, byte_tokenizer, tiny_backbone, tiny_model


def test_a_missing_chat_template_is_an_error():
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(StudyError, match="template: raw"):
        wrap_backbone(tiny_model("llama"), tokenizer, {"template": "native"})


def save(directory, family="llama"):
    tiny_model(family).save_pretrained(directory)
    byte_tokenizer().save_pretrained(directory)
    return directory


def test_a_saved_checkpoint_loads(tmp_path):
    save(tmp_path, "gemma2")
    backbone = load_backbone({"path": str(tmp_path), "dtype": "float32"})
    for (address, weight), (_, expected) in zip(
        backbone.weights(), tiny_backbone("gemma2").weights(), strict=True
    ):
        assert torch.equal(weight, expected), address
    assert backbone.metadata["dtype"] == "float32" and backbone.family.name == "gemma2"


def test_pickled_weights_are_refused(tmp_path):
    save(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(tiny_model("llama").state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(StudyError, match="safetensors"):
        load_backbone({"path": str(tmp_path)})


def test_an_unknown_architecture_is_named(tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=10)).save_pretrained(tmp_path)
    with pytest.raises(StudyError, match=r"unknown model_type 'gpt2'.*llama"):
        load_backbone({"path": str(tmp_path)})


def test_a_checkpoint_without_tokenizer_is_an_error(tmp_path):
    tiny_model("llama").save_pretrained(tmp_path)
    with pytest.raises(StudyError, match="tokenizer"):
        load_backbone({"path": str(tmp_path)})


def edit_tensors(folder: Path, edit: Callable[[dict], dict]) -> None:
    """Replace the weights of a saved checkpoint by what ``edit`` makes of them."""
    tensors = load_file(folder / "model.safetensors")
    save_file(edit(tensors), folder / "model.safetensors", {"format": "pt"})


def edit_config(folder: Path, **changes) -> None:
    """Change keys of a saved checkpoint's config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def without(name: str) -> Callable[[dict], dict]:
    return lambda tensors: {key: value for key, value in tensors.items() if not key.endswith(name)}


def renamed(old: str, new: str) -> Callable[[dict], dict]:
    return lambda tensors: {key.replace(old, new): value for key, value in tensors.items()}


def prefixed(prefix: str) -> Callable[[dict], dict]:
    return lambda tensors: {prefix + key: value for key, value in tensors.items()}


def with_bias(tensors: dict) -> dict:
    width = tensors["model.layers.0.self_attn.q_proj.weight"].shape[0]
    return tensors | {"model.layers.0.self_attn.q_proj.bias": torch.ones(width)}


Q = "model.layers.0.self_attn.q_proj"
# What is done to the tensors -> what the error says.
WRONG_TENSORS = {
    "one missing": (without("layers.1.mlp.up_proj.weight"), r"1 tensors of the model missing \(.*up_proj"),
    "compiled": (prefixed("_orig_mod."), "before torch.compile"),
    "parallel": (prefixed("module."), "DataParallel"),
    "adapter": (prefixed("base_model.model."), "merging the adapter"),
    "adapter not merged": (renamed("q_proj.weight", "q_proj.base_layer.weight"), "merging the adapter"),
    "bias": (with_bias, r"1 tensors that the model does not have \(.*q_proj.bias"),
    "scales": (lambda t: t | {Q + ".weight_scale_inv": torch.ones(1)}, "quantised"),
}


@pytest.mark.parametrize("case", WRONG_TENSORS)
def test_a_checkpoint_without_exactly_the_models_tensors_is_refused(tmp_path, case):
    """transformers fills what is missing with random numbers, which would be scored."""
    edit, message = WRONG_TENSORS[case]
    edit_tensors(save(tmp_path), edit)
    with pytest.raises(StudyError, match=message):
        load_backbone({"path": str(tmp_path)})


def test_an_untied_head_that_is_missing_is_refused(tmp_path):
    edit_tensors(save(tmp_path, "llama3"), without("lm_head.weight"))
    with pytest.raises(StudyError, match=r"1 tensors of the model missing \(lm_head"):
        load_backbone({"path": str(tmp_path)})


@pytest.mark.parametrize("layers", [2, 4])
def test_a_config_with_other_layers_than_the_weights_is_refused(tmp_path, layers):
    edit_config(save(tmp_path), num_hidden_layers=layers)
    with pytest.raises(StudyError, match=r"tensors (of the model missing|that the model does not have)"):
        load_backbone({"path": str(tmp_path)})


@pytest.mark.parametrize("change", [{"hidden_size": 40}, {"vocab_size": 17}, {"intermediate_size": 99}])
def test_sizes_that_contradict_the_weights_are_refused(tmp_path, change):
    edit_config(save(tmp_path), **change)
    with pytest.raises(
        StudyError, match=r"of another size than config.json says, e.g. .* \(\d+|within num_embeddings"
    ):
        load_backbone({"path": str(tmp_path)})


def put(name: str, text: str | bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())


def with_bom(folder: Path) -> None:
    path = folder / "config.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())


def only_sentencepiece(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>")


# What is done to a good checkpoint -> what the error says.
DAMAGED = {
    "trailing comma": (put("config.json", '{"model_type": "llama",}'), "broken JSON in line 1"),
    "byte-order mark": (with_bom, "byte-order mark"),
    "list": (put("config.json", "[]"), "config.json that holds no JSON object"),
    "empty": (put("config.json", ""), "config.json that is empty"),
    "not UTF-8": (put("config.json", b'{"a": "\xe9"}'), "not UTF-8"),
    "tokenizer settings": (put("tokenizer_config.json", ""), "tokenizer_config.json that is empty"),
    "tokenizer": (put("tokenizer.json", "[]"), "expected a checkpoint with config, tokenizer"),
    "end tokens lost": (put("generation_config.json", "{"), "generation_config.json with broken JSON"),
    "end token as text": (put("generation_config.json", '{"eos_token_id": "</s>"}'), "that is no number"),
    "index": (put("model.safetensors.index.json", "{}"), "expected a `weight_map`"),
    "weights": (put("model.safetensors", ""), "SafetensorError"),
    "null size": (lambda folder: edit_config(folder, hidden_size=None), "'hidden_size'"),
    "no heads": (lambda folder: edit_config(folder, num_attention_heads=0), "ZeroDivisionError"),
    "rope": (lambda folder: edit_config(folder, rope_scaling={"type": "other", "factor": 2.0}), "other"),
    "quantised": (lambda folder: edit_config(folder, quantization_config="awq"), r"quantised .*\(awq\)"),
    "model type": (lambda folder: edit_config(folder, model_type=["llama"]), "unknown model_type"),
    "sentencepiece": (only_sentencepiece, "sentencepiece and protobuf"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_checkpoint_is_one_sentence(tmp_path, case):
    damage, message = DAMAGED[case]
    damage(save(tmp_path))
    with pytest.raises(StudyError, match=message):
        load_backbone({"path": str(tmp_path)})


def test_settings_that_may_be_null_load(tmp_path):
    edit_config(
        save(tmp_path), head_dim=None, text_config=None, rope_scaling={"type": "linear", "factor": 2.0}
    )
    assert load_backbone({"path": str(tmp_path)}).head_dim == 8


QUANTISED = {
    "named in the config": (lambda f: edit_config(f, quantization_config={"quant_method": "gptq"}), "gptq"),
    "eight bits": (
        lambda f: edit_tensors(f, lambda t: t | {Q + ".weight": t[Q + ".weight"].to(torch.float8_e4m3fn)}),
        "q_proj.weight in model.safetensors is F8_E4M3",
    ),
}


@pytest.mark.parametrize("case", QUANTISED)
def test_quantised_weights_are_refused(tmp_path, case):
    change, message = QUANTISED[case]
    change(save(tmp_path))
    with pytest.raises(StudyError, match=message):
        load_backbone({"path": str(tmp_path)})


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_loads_all_its_tensors(tmp_path, family):
    save(tmp_path, family)
    loaded = load_backbone({"path": str(tmp_path), "dtype": "float32"})
    expected = tiny_model(family).state_dict()
    assert {name: True for name in expected} == {
        name: torch.equal(value, expected[name]) for name, value in loaded.model.state_dict().items()
    }


def test_harmless_leftovers_load(tmp_path):
    """Old checkpoints hold the rotary frequencies of each layer."""
    extra = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    edit_tensors(save(tmp_path), lambda tensors: tensors | extra)
    assert load_backbone({"path": str(tmp_path)}).family.name == "llama"


def test_two_sets_of_weights_are_refused(tmp_path):
    save(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file(tensors, tmp_path / "part-1.safetensors", {"format": "pt"})
    index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, "part-1.safetensors")}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(StudyError, match="two sets of weights"):
        load_backbone({"path": str(tmp_path)})
    (tmp_path / "model.safetensors").unlink()
    assert load_backbone({"path": str(tmp_path)}).family.name == "llama"


def with_template(template: str):
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def losing_all_text():
    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("?", "")
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Replace(letter, "") for letter in "A short question?"]
    )
    return tokenizer


# Tokenizer, card -> what the error says.
BAD_FRAMES = {
    "template raises": (
        with_template("{{ raise_exception('roles must alternate') }}"),
        {},
        "roles must alternate",
    ),
    "template does not parse": (with_template("{% if %}"), {}, "chat template"),
    "prompt dropped": (with_template("hello"), {}, "does not hold the prompt"),
    "list of parts": (with_template("{{ messages[0]['content'][0]['text'] }}"), {}, "messages of plain text"),
    "system dropped": (
        with_template("{{ messages[-1]['content'] }}"),
        {"system_prompt": "Be kind."},
        "does not hold the system prompt",
    ),
    "system in a raw prompt": (
        byte_tokenizer(),
        {"template": "raw", "system_prompt": "Be kind."},
        "system prompt",
    ),
    "another clock": (
        with_template("{% set f = '%Y' %}{{ strftime_now(f) }}{{ messages[0]['content'] }}"),
        {},
        "changes every day",
    ),
    "no tokens": (losing_all_text(), {}, "no token for a short text"),
}


@pytest.mark.parametrize("case", BAD_FRAMES)
def test_a_prompt_that_does_not_arrive_is_noticed_when_the_backbone_is_opened(case):
    tokenizer, card, message = BAD_FRAMES[case]
    with pytest.raises(StudyError, match=message):
        wrap_backbone(tiny_model("llama"), tokenizer, card)


def test_a_template_that_fails_on_one_prompt_does_not_quote_it():
    template = (
        "{% set m = messages[0]['content'] %}{% if '!' in m %}{{ raise_exception(m) }}{% endif %}{{ m }}"
    )
    backbone = wrap_backbone(tiny_model("llama"), with_template(template), {})
    with pytest.raises(StudyError, match="a failure on one of the prompts") as raised:
        backbone.prompt_ids("secret words!")
    assert "secret" not in str(raised.value)


def test_ids_beyond_the_embedding_are_refused():
    model = tiny_model("llama")
    model.resize_token_embeddings(100)
    with pytest.raises(StudyError, match="ids below 100"):
        wrap_backbone(model, byte_tokenizer(), {})
    probe, other = (max(tiny_backbone("llama").prompt_ids(text)) for text in ("A short question?", "à"))
    assert probe < other
    model.resize_token_embeddings(other)
    backbone = wrap_backbone(model, byte_tokenizer(), {})
    with pytest.raises(StudyError, match=f"ids below {other}"):
        backbone.prompt_ids("à")


DATED = "{{ strftime_now('%d %b %Y') }} {{ messages[-1]['content'] }}"
LLAMA_3_2 = (
    "{%- if not date_string is defined %}{%- set date_string = strftime_now('%d %b %Y') %}{%- endif %}"
    "Today Date: {{ date_string }} {{ messages[-1]['content'] }}"
)


@pytest.mark.parametrize("template", [DATED, LLAMA_3_2])
def test_a_template_that_asks_for_the_date_gets_a_fixed_one(template):
    usual = wrap_backbone(tiny_model("llama"), with_template(template), {})
    assert usual.render("Why?").removeprefix("Today Date: ") == "26 Jul 2024 Why?"
    asked = wrap_backbone(tiny_model("llama"), with_template(template), {"date": "2025-01-02"})
    assert asked.render("Why?").removeprefix("Today Date: ") == "02 Jan 2025 Why?"
    assert usual.metadata["prompt_frame_sha256"] != asked.metadata["prompt_frame_sha256"]


THINKING = (
    "{{ messages[-1]['content'] }}<|assistant|>"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
)


@pytest.mark.parametrize(("family", "thinks"), [("qwen3", False), ("smollm3", False), ("llama", True)])
def test_families_that_think_are_told_not_to_unless_the_card_asks(family, thinks):
    def frame(card):
        return wrap_backbone(tiny_model(family), with_template(THINKING), card).render("Why?")

    assert ("</think>" not in frame({})) == thinks
    assert "</think>" not in frame({"template_options": {"enable_thinking": True}})
    assert "</think>" in frame({"template_options": {"enable_thinking": False}})


def test_the_metadata_show_what_a_template_inserts_by_itself():
    template = "<|system|>You are helpful.<|user|>{{ messages[-1]['content'] }}<|assistant|>"
    backbone = wrap_backbone(tiny_model("llama"), with_template(template), {})
    assert backbone.metadata["system_prompt"] is None
    assert backbone.metadata["prompt_frame"] == "<|system|>You are helpful.<|user|>{prompt}<|assistant|>"
