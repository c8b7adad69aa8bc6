"""Answers that reuse the blocks below the scaled ones are those that compute everything anew."""

import pytest

from safety_regions.methods.safelayer.onset import Span
from safety_regions.methods.safelayer.prefix import Prefix
from safety_regions.methods.safelayer.scaling import scale_target, scaled
from safety_regions.model.generate import answer_prompts
from tests.tiny import FAMILIES, tiny_backbone

PROMPTS = [
    f"How do I {deed} {thing}?"
    for deed in ("bake", "mend", "read aloud")
    for thing in ("bread", "a long shirt")
]
# Ranges in the order of a walk: the same lower bound, then higher ones, then one that is lower than any before.
RANGES = (Span(2, 2), Span(2, 3), Span(3, 3), Span(1, 2), Span(2, 3), Span(0, 1), Span(1, 3))


def answers(backbone, span: Span, prefix: Prefix | None, size: int = 4) -> list:
    target = scale_target(backbone.family, "auto")
    with scaled(backbone, 2.5, span, target):
        if prefix is None:
            return answer_prompts(backbone, PROMPTS, max_new_tokens=9, batch_size=size)
        with prefix.below(span.first):
            return answer_prompts(backbone, PROMPTS, max_new_tokens=9, batch_size=size)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_answers_are_the_same(family):
    backbone = tiny_backbone(family, num_hidden_layers=4)
    prefix, found = Prefix(backbone), []
    for span in RANGES:
        found.append(answers(backbone, span, prefix))
        assert found[-1] == answers(backbone, span, None), span
    assert len({str(one) for one in found}) > 1, "scaling changes answers"


def test_prompts_pass_through_lower_blocks_once_and_answers_always():
    backbone = tiny_backbone("llama", num_hidden_layers=4)
    prefix, tokens = Prefix(backbone), []
    projection = backbone.blocks[1].get_submodule("mlp.down_proj")
    handle = projection.register_forward_hook(lambda _module, args, _out: tokens.append(args[0].shape[1]))
    for last in (2, 3):
        answers(backbone, Span(2, last), prefix, len(PROMPTS))
    handle.remove()
    assert tokens[0] > 9 and set(tokens[1:]) == {1}


def test_a_batch_of_other_prompts_is_computed():
    backbone = tiny_backbone("llama", num_hidden_layers=4)
    prefix = Prefix(backbone)
    for size in (4, 3, 6):
        assert answers(backbone, Span(2, 3), prefix, size) == answers(backbone, Span(2, 3), None, size)


def test_blocks_are_themselves_afterwards_also_after_an_error():
    backbone = tiny_backbone("llama", num_hidden_layers=4)
    given = backbone.blocks[1].forward = backbone.blocks[1].forward  # as accelerate does
    with pytest.raises(KeyError), Prefix(backbone).below(3):
        assert vars(backbone.blocks[0])["forward"] and vars(backbone.blocks[1])["forward"] != given
        raise KeyError
    assert [vars(block).get("forward") for block in backbone.blocks] == [None, given, None, None]
    assert not backbone.model._forward_pre_hooks
