"""Answers must be the same in any batch, end at every end token, and keep leading spaces."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safety_regions.errors import StudyError
from safety_regions.model.generate import _chooser, answer_prompts, continue_prompts, end_ids, pad_id
from tests.tiny import FAMILIES, tiny_backbone

PROMPTS = ["a", "how are you?", "tell me", "x" * 30, "what is 2 + 2", "tell me", "ü"]


def literal(backbone, ids: list[int], count: int) -> list[int]:
    """Generate for one prompt: pass the whole sequence through the model for every token, without cache or padding."""
    out: list[int] = []
    while len(out) < count:
        with torch.no_grad():
            logits = backbone.model(torch.tensor([ids + out])).logits
        out.append(int(logits[0, -1].argmax()))
        if out[-1] in end_ids(backbone):
            break
    return out


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_batch_of_any_size_gives_what_one_prompt_alone_gives(family):
    backbone = tiny_backbone(family)
    encoded = [backbone.prompt_ids(prompt) for prompt in PROMPTS]
    expected = [literal(backbone, ids, 8) for ids in encoded]
    assert continue_prompts(backbone, encoded, 8) == expected
    answers = [answer_prompts(backbone, PROMPTS, max_new_tokens=8, batch_size=size) for size in (1, 3, 100)]
    assert all(other == answers[0] for other in answers)
    assert [answer.n_tokens for answer in answers[0]] == [
        len([token for token in ids if token not in end_ids(backbone)]) for ids in expected
    ]


@pytest.mark.slow
@settings(max_examples=10)
@given(st.permutations(range(len(PROMPTS))))
def test_answers_come_in_the_order_of_the_prompts(order):
    backbone = tiny_backbone("llama")
    straight = answer_prompts(backbone, PROMPTS, max_new_tokens=4, batch_size=3)
    shuffled = answer_prompts(backbone, [PROMPTS[i] for i in order], max_new_tokens=4, batch_size=3)
    assert shuffled == [straight[i] for i in order]


def ending_at(backbone, token: int, where: str):
    """Give the backbone another end token, in one of the three places that may name it, and return it."""
    config, generation = backbone.model.config, backbone.model.generation_config
    config.eos_token_id, generation.eos_token_id = None, None
    tokenizer = backbone.tokenizer
    tokenizer.eos_token = None
    if where == "tokenizer":
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(token)
    else:
        {"config": config, "generation": generation}[where].eos_token_id = [999, token]
    return backbone


@pytest.mark.parametrize("where", ["config", "generation", "tokenizer"])
def test_every_place_that_names_an_end_token_is_honoured(where):
    free = continue_prompts(tiny_backbone("qwen2"), [[65, 66, 67]], 8)[0]
    stop = free[4]
    backbone = ending_at(tiny_backbone("qwen2"), stop, where)
    assert stop in end_ids(backbone)
    assert continue_prompts(backbone, [[65, 66, 67]], 8)[0] == free[: free.index(stop) + 1]


def test_the_reason_of_stopping_is_recorded():
    backbone = tiny_backbone("llama")
    prompt = PROMPTS[1]
    first = literal(backbone, backbone.prompt_ids(prompt), 1)[0]
    (cut,) = answer_prompts(backbone, [prompt], max_new_tokens=3, batch_size=1)
    assert (cut.stop, cut.n_tokens) == ("length", 3)
    (ended,) = answer_prompts(
        ending_at(backbone, first, "generation"), [prompt], max_new_tokens=3, batch_size=1
    )
    assert ended == ("", 0, "eos")


def test_a_tokenizer_without_pad_token_changes_nothing():
    with_pad, without = tiny_backbone("mistral"), tiny_backbone("mistral")
    without.tokenizer.pad_token = None
    assert pad_id(without) != pad_id(with_pad)
    assert answer_prompts(without, PROMPTS, max_new_tokens=5, batch_size=4) == answer_prompts(
        with_pad, PROMPTS, max_new_tokens=5, batch_size=4
    )


def test_a_repetition_penalty_of_the_checkpoint_does_not_bend_greedy():
    plain, bent = tiny_backbone("qwen2"), tiny_backbone("qwen2")
    bent.model.generation_config.repetition_penalty = 5.0
    assert answer_prompts(bent, PROMPTS, max_new_tokens=8, batch_size=4) == answer_prompts(
        plain, PROMPTS, max_new_tokens=8, batch_size=4
    )


class SpaceDroppingTokenizer:
    """A tokenizer that decodes like SentencePiece: it drops the space before the first word of a text."""

    pad_token_id = 0
    eos_token_id = None

    def decode(self, ids, **_):
        return "".join(f" w{token}" for token in ids).removeprefix(" ")


def test_the_leading_space_of_an_answer_survives():
    backbone = tiny_backbone("llama")
    spaced = SimpleNamespace(
        model=backbone.model, device=backbone.device, tokenizer=SpaceDroppingTokenizer(),
        prompt_ids=backbone.prompt_ids, temperature=0.0, rope_switch=None,
    )  # fmt: skip
    (answer,) = answer_prompts(spaced, ["hello"], max_new_tokens=2, batch_size=1)
    assert answer.text.startswith(" w")


def test_a_prompt_beyond_the_context_is_named_by_its_id_or_index_only():
    backbone = tiny_backbone("llama")
    room = backbone.config.max_position_embeddings - len(backbone.prompt_ids("")) - 5
    answer_prompts(backbone, ["y" * room], max_new_tokens=5, batch_size=1)
    with pytest.raises(StudyError, match=r"\(tokens\): index 1 \(") as caught:
        answer_prompts(backbone, ["ok", "y" * (room + 1)], max_new_tokens=5, batch_size=2)
    assert "yy" not in str(caught.value)
    with pytest.raises(StudyError, match=r"\(tokens\): mine-7 \("):
        answer_prompts(backbone, ["y" * (room + 1)], max_new_tokens=5, batch_size=2, prompt_ids=["mine-7"])


def test_no_prompts_no_answers():
    assert answer_prompts(replace(tiny_backbone("llama")), [], max_new_tokens=5, batch_size=2) == []


def sampling(temperature: float):
    return replace(tiny_backbone("llama"), temperature=temperature)


@pytest.mark.slow
def test_sampled_answers_depend_on_the_prompt_alone():
    backbone = sampling(1.0)
    alone = [answer_prompts(backbone, [prompt], max_new_tokens=8, batch_size=1)[0] for prompt in PROMPTS]
    assert answer_prompts(backbone, PROMPTS, max_new_tokens=8, batch_size=3) == alone
    assert answer_prompts(backbone, PROMPTS[::-1], max_new_tokens=8, batch_size=7) == alone[::-1]
    assert alone != answer_prompts(sampling(0.0), PROMPTS, max_new_tokens=8, batch_size=3)


def test_a_low_temperature_is_nearly_greedy():
    greedy = answer_prompts(sampling(0.0), PROMPTS, max_new_tokens=8, batch_size=3)
    assert answer_prompts(sampling(1e-6), PROMPTS, max_new_tokens=8, batch_size=3) == greedy


def test_tokens_are_drawn_from_the_tempered_distribution():
    """Over 4000 prompts with the same logits, each token has the frequency softmax(logits / temperature) +- 5 s.e."""
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0])
    choose = _chooser([[i] for i in range(4000)], 0.7)
    drawn = torch.bincount(choose(logits.expand(4000, 4)), minlength=4) / 4000
    p = (logits / 0.7).softmax(0)
    assert ((drawn - p).abs() < 5 * (p * (1 - p) / 4000).sqrt()).all()


ROPE = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "short_factor": [1.0] * 4,
    "long_factor": [1.0, 2.0, 8.0, 30.0],
    "original_max_position_embeddings": 48,
}


@pytest.mark.slow
def test_long_rope_does_not_mix_in_a_batch():
    """Some prompts stay below the switch at 48 tokens, some pass it while they are answered, and some start above."""
    sizes = {"original_max_position_embeddings": 48, "tie_word_embeddings": False}
    backbone = tiny_backbone("phi3", rope_parameters=ROPE, **sizes)
    assert backbone.rope_switch == 48 and tiny_backbone("phi3").rope_switch is None
    for linear in backbone.linears:
        linear.module.weight.mul_(8)  # answers that depend on positions
    prompts = [letter * n for n in (1, 5, 20, 21, 22, 24, 26, 27, 28, 40, 60) for letter in "ab"]
    encoded = [backbone.prompt_ids(prompt) for prompt in prompts]
    assert {len(ids) - 48 for ids in encoded} > {0, 1, -1}
    expected = [literal(backbone, ids, 6) for ids in encoded]
    answers = [answer_prompts(backbone, prompts, max_new_tokens=6, batch_size=size) for size in (1, 100)]
    texts = [backbone.tokenizer.decode(ids, skip_special_tokens=True) for ids in expected]
    assert [answer.text for answer in answers[0]] == texts
    assert answers[1] == answers[0]
    mixed = continue_prompts(backbone, encoded, 6)
    assert mixed != expected, "the case must be one in which a shared batch changes answers"
