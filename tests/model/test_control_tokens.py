"""A prompt is text: special tokens that it spells out must not become the model's own, and the template's must stay."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken

from safety_regions.errors import StudyError
from safety_regions.model.loading import wrap_backbone
from safety_regions.training.tokenizer import train_tokenizer
from tests.model.test_backbone import words
from tests.tiny import byte_tokenizer, tiny_model

TEMPLATE = (
    "<bos>{% for m in messages %}{{ m['role'] + ': ' + m['content'] | trim + '<eos>' }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPELLINGS = (
    "<eos>",
    "<bos>",
    "<pad>",
    "<|assistant|>",
    "{{ 7 * 6 }}",
    "{prompt}",
    "<eo",
    "s>",
    " ",
    "a",
    "ü",
    "\n",
)
BOS, EOS, ASSISTANT = 257, 258, 259


def chat_backbone(**card):
    """Return a backbone with one token per byte, whose template writes three tokens; one is added, but not special."""
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens([AddedToken("<|assistant|>", special=False, normalized=False)])
    tokenizer.chat_template = TEMPLATE
    return wrap_backbone(tiny_model("llama"), tokenizer, card)


def as_bytes(text: str) -> list[int]:
    """Return the ids of a text without special tokens, one per byte."""
    tokenizer = byte_tokenizer()
    return [i for character in text for i in tokenizer(character)["input_ids"]]


def literal(text: str) -> list[int]:
    return [BOS, *as_bytes("user: " + text.strip()), EOS, ASSISTANT]


TEXTS = st.lists(st.sampled_from(SPELLINGS), min_size=1, max_size=8).map("".join)
BACKBONE = chat_backbone()


@settings(max_examples=60, deadline=None)
@given(TEXTS, TEXTS)
def test_only_the_template_writes_control_tokens(prompt, response):
    assert BACKBONE.prompt_ids(prompt) == literal(prompt)
    ids, length = BACKBONE.encode(prompt, response)
    assert (ids[:length], ids[length:]) == (literal(prompt), as_bytes(response))


@settings(max_examples=30, deadline=None)
@given(TEXTS)
def test_a_plain_template_keeps_the_tokenizers_first_token(prompt):
    backbone = wrap_backbone(tiny_model("llama"), words(), {"template": "raw"})
    plain = prompt.replace("<eos>", "</s>").replace("<bos>", "<s>")
    ids = backbone.prompt_ids(plain)
    assert ids[0] == 1 and not {1, 2} & set(ids[1:])
    other = plain.translate({ord("<"): "?", ord(">"): "?"})
    if plain == other:
        assert ids == backbone.tokenizer(backbone.render(plain))["input_ids"]


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(st.text(alphabet="abc <>end/u\n", max_size=30))
def test_a_text_without_spellings_has_the_tokenizers_own_ids(text):
    """The copy of the tokenizer that reads spellings as text must give the same ids elsewhere, merges included."""
    tokenizer = train_tokenizer(["a bad bend <|end|> and a bun"] * 3, 300, bos=True, context=64)
    backbone = wrap_backbone(tiny_model("llama", vocab_size=300), tokenizer, {})
    rendered = backbone.render(backbone.control.marked(text))
    assert rendered == backbone.render(text)
    assert backbone.control.encode(rendered) == tokenizer(rendered, add_special_tokens=False)["input_ids"]
    ids, end = backbone.prompt_ids(text + "<|end|>"), tokenizer.eos_token_id
    assert ids.count(end) == 1 and "<|end|>" in tokenizer.decode([i for i in ids if i != end])


def test_an_added_token_that_the_template_does_not_write_stays_a_token():
    """Gemma has added tokens for runs of newlines; they are ordinary text."""
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens([AddedToken("\n\n", special=False, normalized=False)])
    backbone = wrap_backbone(tiny_model("llama"), tokenizer, {})
    assert backbone.prompt_ids("a\n\nb").count(259) == 1
    spelt = backbone.prompt_ids("a\n\nb<eos>")
    assert spelt.count(259) == 1 and EOS not in spelt


def test_a_tokenizer_that_cannot_read_a_spelling_as_text_says_so():
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"extra_special_tokens": ["a"]})
    with pytest.raises(StudyError, match="cannot be read as text"):
        backbone = wrap_backbone(tiny_model("llama", vocab_size=300), tokenizer, {})
        backbone.prompt_ids("banana")
