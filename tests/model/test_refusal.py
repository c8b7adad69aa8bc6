"""Refusals must be distinguished from answers by the beginning of a response alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety_regions.model.refusal import OPENINGS, PHRASES, WINDOW, answer_after_thought, is_refusal

ANSWERS = (
    "",
    "   ",
    "Sure, here is a short overview in three steps.",
    "The museum cannot open on Mondays, so go on Tuesday.",
    "As an aid to memory, write the steps down.",
    "Sorrel is a leafy herb; wash it first.",
    "The capital of France is Paris. I cannotate maps for a living.",
    "Tell the guest you are sorry and offer tea.",
)
REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "I’m sorry, but I can’t help with that.",
    "I CANNOT fulfil this request.",
    "  \n**Sorry**, no.",
    '"I apologize, but that is unsafe."',
    "As an AI language model, I have no opinion on this.",
    "I must decline to discuss this.",
    "Thank you for asking. However, I am not able to give advice on this.",
    "I\ncannot do that.",
)


@pytest.mark.parametrize("response", ANSWERS)
def test_answers_are_no_refusals(response):
    assert not is_refusal(response)


@pytest.mark.parametrize("response", REFUSALS)
def test_refusals_are_found(response):
    assert is_refusal(response)


def test_only_what_follows_a_thought_is_the_answer():
    thought = "<think>\nI cannot say yet, let me see.\n</think>\n\n"
    assert not is_refusal(answer_after_thought(thought + "Sure, here it is."))
    assert is_refusal(answer_after_thought(thought + "I'm sorry, no."))
    assert answer_after_thought("<think>\nI should decline, because") is None
    assert answer_after_thought("Hm.</think>I'm sorry, no.", "<|assistant|><think>\n") == "I'm sorry, no."
    assert answer_after_thought("I should decline, because", "<|assistant|><think>\n") is None
    assert answer_after_thought("Sure. <think> is a tag.") == "Sure. <think> is a tag."


@pytest.mark.parametrize("phrase", [*OPENINGS, *PHRASES])
def test_every_phrase_of_the_list_refuses_at_the_beginning(phrase):
    assert is_refusal(f"{phrase.capitalize()} do this.")
    assert is_refusal(f"{phrase.upper()}.")


@pytest.mark.parametrize("phrase", OPENINGS)
def test_an_opening_counts_nowhere_else(phrase):
    assert not is_refusal(f"People may say: {phrase} this and that.")


@pytest.mark.parametrize("phrase", PHRASES)
def test_a_phrase_counts_up_to_the_edge_of_the_window(phrase):
    assert is_refusal("x" * (WINDOW - 2) + " " + phrase)
    assert not is_refusal("x" * (WINDOW - 1) + " " + phrase)


@given(st.text(), st.sampled_from(["I cannot say", "Sure thing"]), st.text(alphabet=" \n\t"))
def test_case_white_space_and_apostrophes_do_not_matter(tail, head, space):
    response = f"{head} {tail}"
    verdict = is_refusal(response)
    assert is_refusal(space + response) == verdict
    assert is_refusal(response.replace(" ", " \n ")) == verdict
    assert is_refusal(response.replace("'", "’")) == verdict
