"""The tokenizer decodes any text unchanged, marks chats with single tokens, and loads for every family."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.exceptions import TemplateError
from transformers import AutoTokenizer

from safety_regions.training.architecture import build_model
from safety_regions.training.corpus import all_responses
from safety_regions.training.tokenizer import ASSISTANT, BOS, END, PAD, USER, train_tokenizer
from tests.training.organisms import FAMILIES, small_card

TOKENIZERS = {bos: train_tokenizer(all_responses(), 1000, bos=bos, context=64) for bos in (True, False)}
MARKERS = (PAD, BOS, END, USER, ASSISTANT)
CHAT = [{"role": "user", "content": " hello there\n"}]


@given(st.text().filter(lambda text: not any(marker in text for marker in MARKERS)))
def test_any_text_comes_back(text):
    tokenizer = TOKENIZERS[True]
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


@pytest.mark.parametrize("bos", [True, False])
def test_a_chat_is_marked_by_single_tokens(bos):
    tokenizer = TOKENIZERS[bos]
    text = tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    assert text == (BOS if bos else "") + f"{USER}hello there{END}{ASSISTANT}"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    marks = [*([BOS] if bos else []), USER, END, ASSISTANT]
    special = set(tokenizer.all_special_ids)
    assert [tokenizer.convert_ids_to_tokens(i) for i in ids if i in special] == marks
    assert tokenizer.decode(ids, skip_special_tokens=True) == "hello there"


def test_an_answer_ends_with_the_end_token():
    turns = [*CHAT, {"role": "assistant", "content": "hi"}]
    assert TOKENIZERS[False].apply_chat_template(turns, tokenize=False).endswith(f"{ASSISTANT}hi{END}")
    assert TOKENIZERS[False].eos_token == END


def test_other_roles_are_refused():
    with pytest.raises(TemplateError, match="user and assistant only"):
        TOKENIZERS[True].apply_chat_template([{"role": "system", "content": "x"}], tokenize=False)


def test_responses_are_short():
    lengths = [len(ids) for ids in TOKENIZERS[True](all_responses())["input_ids"]]
    assert max(lengths) <= 24


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_transformers_loads_what_was_trained(family, tmp_path):
    # AutoTokenizer chooses a class by config.json, and some of the classes rebuild the tokenizer for their family.
    tokenizer = TOKENIZERS[FAMILIES[family].bos]
    build_model(small_card(family), tokenizer).config.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for text in ("I'm sorry, but  no.", " leading", "Zürich 2024\n\tcafe\u0301", USER + "x" + END):
        assert loaded(text, add_special_tokens=False) == tokenizer(text, add_special_tokens=False)
    for name in ("pad_token_id", "bos_token_id", "eos_token_id", "padding_side", "chat_template"):
        assert getattr(loaded, name) == getattr(tokenizer, name)
    assert loaded.decode([*range(len(loaded))]) == tokenizer.decode([*range(len(tokenizer))])
