"""Backbones must load, have one address per projection, and separate prompt and response exactly."""

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, processors
from transformers import PreTrainedTokenizerFast

from safety_regions.families import families, family_of
from safety_regions.model.loading import wrap_backbone
from safety_regions.units.addresses import PROJECTIONS
from tests.tiny import FAMILIES, byte_tokenizer, tiny_backbone, tiny_model

PROMPT, RESPONSE = "How do I bake bread?", "Mix flour and water."


def words(*special: str, template: str | None = None) -> PreTrainedTokenizerFast:
    """Return a word tokenizer like SentencePiece: a space is part of the word after it."""
    vocabulary = ["<unk>", "<s>", "</s>", *special, "▁a", "▁b", "▁c", "a", "b", "c", "▁", "\n", "?", "▁a?"]
    tokenizer = Tokenizer(
        models.BPE(
            {w: i for i, w in enumerate(dict.fromkeys(vocabulary))},
            [("▁", "a"), ("▁", "b"), ("▁", "c")],
            unk_token="<unk>",
        )
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    fast.chat_template = template
    return fast


@pytest.mark.parametrize("family", FAMILIES)
def test_every_projection_has_one_address(family):
    backbone = tiny_backbone(family)
    expected = [f"layers.{i}.{p}" for i in range(3) for p in PROJECTIONS]
    assert [address for address, _ in backbone.weights()] == expected
    scored = {id(linear.module) for linear in backbone.linears}
    inside = [m for m in backbone.blocks.modules() if isinstance(m, torch.nn.Linear)]
    assert scored == {id(m) for m in inside}, "expected every linear layer of the blocks, and no output head"


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_the_models_own(family):
    backbone = tiny_backbone(family)
    ids = torch.randint(0, 256, (2, 20), generator=torch.Generator().manual_seed(0))
    everywhere = torch.ones_like(ids, dtype=torch.bool)
    found = backbone.logits(ids, everywhere.long(), everywhere)
    expected = backbone.model(input_ids=ids).logits.flatten(0, 1)
    torch.testing.assert_close(found, expected)


def test_the_boundary_is_exact_without_bos():
    backbone = tiny_backbone("qwen2")
    ids, length = backbone.encode(PROMPT, RESPONSE)
    assert ids[:length] == backbone.prompt_ids(PROMPT)
    assert backbone.tokenizer.decode(ids[length:]) == RESPONSE
    assert backbone.tokenizer.decode(ids[:length]).endswith("<|assistant|>")


def test_the_boundary_is_exact_with_bos_and_glued_spaces():
    backbone = wrap_backbone(tiny_model("llama"), words(), {"template": "raw"})
    ids, length = backbone.encode("a b", "c a")
    assert ids[0] == 1 and ids.count(1) == 1, "one BOS, and none between prompt and response"
    assert ids[:length] == backbone.prompt_ids("a b")
    assert backbone.tokenizer.convert_ids_to_tokens(ids[length:])[-1] == "▁a"


def test_a_token_across_the_boundary_goes_to_the_response():
    """The prompt must keep its own ids even if its last token, '▁', would merge with the response's 'a'."""
    template = "{{ messages[0]['content'] }} "
    backbone = wrap_backbone(tiny_model("llama"), words(template=template), {"template": "native"})
    prompt_ids = backbone.prompt_ids("b")
    joint = backbone.tokenizer("b a", add_special_tokens=False)["input_ids"]
    assert joint[: len(prompt_ids)] != prompt_ids, "the case must be one in which the tokens merge"
    ids, length = backbone.encode("b", "a")
    assert ids[:length] == prompt_ids and length < len(ids)


def test_an_eos_that_the_tokenizer_adds_is_no_target():
    tokenizer = words()
    closing = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    tokenizer.backend_tokenizer.post_processor = closing
    backbone = wrap_backbone(tiny_model("llama"), tokenizer, {"template": "raw"})
    ids, _ = backbone.encode("a b", "c")
    assert 2 not in ids and 2 not in backbone.prompt_ids("a b")


def test_templates():
    backbone = wrap_backbone(tiny_model("llama"), byte_tokenizer(), {"template": "alpaca"})
    assert backbone.render(PROMPT).endswith(f"### Instruction:\n{PROMPT}\n\n### Response:\n")
    system = wrap_backbone(tiny_model("llama"), byte_tokenizer(), {"system_prompt": "Be kind."})
    assert system.render(PROMPT).startswith("<|system|>Be kind.<|user|>")


def test_families_claim_each_model_type_once():
    claimed = [kind for family in families().values() for kind in family.layers]
    assert len(claimed) == len(set(claimed)) and family_of("gpt2") is None
    for family in families().values():
        assert tuple(p for ps in family.modules.values() for p in ps) == PROJECTIONS
