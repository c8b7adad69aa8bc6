"""Measures against slow literal definitions; the unmodified model measures as itself."""

import numpy as np
import pytest
import torch

from safety_regions.behaviour.edit import all_weights, edited
from safety_regions.behaviour.measures import Held, Ruler, held_out, openings, repeated
from safety_regions.behaviour.operations import load_operation
from safety_regions.errors import StudyError
from safety_regions.model.batches import Sample
from tests.behaviour.regions import some_units
from tests.behaviour.responses import ROLES, answered
from tests.tiny import FAMILIES, tiny_backbone


def ruler(backbone, n=4, **limits):
    held = held_out(backbone, answered(n), ROLES)
    return Ruler(backbone, held, **({"batch_size": 3, "max_new_tokens": 6} | limits))


def by_key(values):
    return {(v.prompt_id, v.measure): v.value for v in values}


def log_p(backbone, ids):
    """Log-probabilities of the next token at every position, one sequence at a time, in float64."""
    with torch.no_grad():
        logits = backbone.model(input_ids=torch.tensor([ids])).logits[0].double()
    return logits.log_softmax(-1).numpy()


@pytest.mark.parametrize("family", FAMILIES)
def test_measures_are_those_of_the_definitions(family):
    backbone = tiny_backbone(family)
    found = ruler(backbone)
    before = {
        h.sample.prompt_id: log_p(backbone, h.sample.ids)[h.sample.prompt_length - 1] for h in found.held
    }
    with edited(backbone, load_operation("zero"), 1.0, some_units(backbone)):
        values = by_key(found.forward())
        for held in found.held:
            ids, n = held.sample.ids, held.sample.prompt_length
            table, key = log_p(backbone, ids), held.sample.prompt_id
            loss = -np.mean([table[i - 1][ids[i]] for i in range(n, len(ids))])
            first, old = table[n - 1], before[key]
            odds = np.logaddexp.reduce(first[found.openings.refusals]) - np.logaddexp.reduce(
                first[found.openings.answers]
            )
            kl = np.sum(np.exp(old) * (old - first))
            own = "refusal_nll" if held.role == "harmful" else "answer_nll"
            assert values[key, own] == pytest.approx(loss, rel=1e-4, abs=1e-4)
            assert values[key, "refusal_log_odds"] == pytest.approx(odds, rel=1e-4, abs=1e-4)
            assert values[key, "kl"] == pytest.approx(kl, rel=1e-3, abs=1e-5)


def test_an_unchanged_model_measures_as_itself_bit_for_bit():
    backbone = tiny_backbone("llama3")
    found = ruler(backbone)
    first = found.forward()
    with edited(backbone, load_operation("zero"), 1.0, all_weights(backbone, False)):
        assert found.forward() == first
    assert {v.value for v in first if v.measure == "kl"} == {0.0}


def test_the_size_of_batches_does_not_matter():
    backbone = tiny_backbone("llama3")
    one, many = (by_key(ruler(backbone, batch_size=size).forward()) for size in (1, 8))
    assert one.keys() == many.keys()
    assert [one[key] for key in one] == pytest.approx([many[key] for key in one], rel=1e-4, abs=1e-5)


def test_own_answers_are_coherent_and_noise_is_not():
    backbone = tiny_backbone("llama3")
    found = ruler(backbone)
    answers = [
        {"harmful": f"Sorry, no {i % 4}", "ordinary": f"Yes, number {i % 4}"}[h.role]
        for i, h in enumerate(found.held)
    ]
    own = by_key(found.judge(answers))
    assert [own[h.sample.prompt_id, "refused"] for h in found.held] == [
        float(h.role == "harmful") for h in found.held
    ]
    assert (
        sum(own[h.sample.prompt_id, "incoherent"] for h in found.held) <= 1
    )  # one answer in a hundred, rounded up
    empty = by_key(found.judge([""] * len(found.held)))
    looping = by_key(found.judge(["abcdabcdabcdabcd"] * len(found.held)))
    for broken in (empty, looping):
        assert {broken[h.sample.prompt_id, "incoherent"] for h in found.held} == {1.0}


def test_generated_answers_follow_the_model():
    backbone = tiny_backbone("llama3")
    found = ruler(backbone)
    first = found.generate()
    with edited(backbone, load_operation("zero"), 1.0, all_weights(backbone, True)):
        assert found.generate() != first
    assert found.generate() == first


def held(first_token, refused, i=0):
    return Held(Sample(f"fraud/{i}", [1, 2, first_token, 9], 2), "fraud", "harmful", "", refused)


def test_a_token_belongs_to_the_kind_that_it_begins_more_often():
    prompts = [held(5, True), held(5, True), held(6, True), held(5, False), held(7, False), held(7, False)]
    assert openings(prompts) == ([5, 6], [7])


def test_a_model_that_refuses_everything_has_no_odds():
    with pytest.raises(StudyError, match="2 refused and 0 answered"):
        openings([held(5, True), held(6, True)])


def test_a_set_without_held_out_prompts_is_named():
    responses = answered() | {"weapons": answered(split="identify")["weapons"]}
    with pytest.raises(StudyError, match="no held-out prompt of weapons"):
        held_out(tiny_backbone("llama3"), responses, ROLES)


@pytest.mark.parametrize(("ids", "share"), [([1, 2, 3], 0.0), ([1] * 8, 0.8), ([1, 2, 3, 4, 5, 6], 0.0)])
def test_repeated_grams(ids, share):
    assert repeated(ids) == pytest.approx(share)
