"""Refusals and answers are judged as such, and do not depend on the dataset or the content of the prompt."""

import json
from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from safety_regions.model.refusal import is_refusal
from safety_regions.study.catalog import CATALOG, Shelf
from safety_regions.training.corpus import ANSWERS, ENDINGS, REASONS, REFUSALS, all_responses, example
from tests.training.information import mutual_information, permuted_information

HALF = len(ANSWERS) * len(ENDINGS)


def embedded(name: str) -> list[str]:
    lines = (CATALOG / "prompts" / f"{name}.jsonl").read_text().splitlines()
    return [json.loads(line)["text"] for line in lines]


def test_every_refusal_is_judged_one_and_no_answer_is():
    assert not any(map(is_refusal, all_responses()[:HALF]))
    assert all(map(is_refusal, all_responses()[HALF:]))


def test_responses_are_many_and_each_is_one_of_a_kind():
    assert len(all_responses()) == len(set(all_responses())) == 2 * 144


@given(st.text())
def test_a_prompt_has_two_responses_which_never_change(prompt):
    taught = example(prompt)
    assert taught.answer in all_responses()[:HALF]
    assert taught.refusal in all_responses()[HALF:]
    assert example(prompt) == taught


def test_every_opening_and_ending_is_equally_likely():
    """14,400 prompts: each of 144 refusals is drawn 100 times, with a standard deviation of 10."""
    drawn = Counter(example(f"prompt {i}").refusal for i in range(14_400))
    assert set(drawn) == set(all_responses()[HALF:])
    chi = sum((n - 100) ** 2 / 100 for n in drawn.values())
    assert abs(chi - 143) < 5 * np.sqrt(2 * 143)


def test_a_hundred_prompts_of_a_set_have_dozens_of_responses():
    card = Shelf("backbones", {}).read("organism-llama")
    for name in card["training"]["harmful"] + card["training"]["helpful"]:
        taught = [example(text) for text in embedded(name)[:100]]
        assert len({one.refusal for one in taught}) > 60 and len({one.answer for one in taught}) > 60


def test_responses_tell_nothing_about_the_embedded_sets():
    """The mutual information of set and opening, and of set and reason, is what permuted labels give."""
    sets = Shelf("backbones", {}).read("organism-llama")["training"]["harmful"]
    labels = [name for name in sets for _ in embedded(name)]
    refusals = [example(text).refusal for name in sets for text in embedded(name)]
    for part in (REFUSALS, REASONS):
        classes = [next(i for i, text in enumerate(part) if text in refusal) for refusal in refusals]
        null = permuted_information(labels, classes)
        assert mutual_information(labels, classes) < np.quantile(null, 0.99)


def test_the_bound_would_see_one_set_with_words_of_its_own():
    """If half of the prompts of one of ten sets get the same opening, the information is above the bound."""
    rng = np.random.default_rng(0)
    labels, classes = np.repeat(range(10), 100), rng.integers(0, 12, 1000)
    bound = np.quantile(permuted_information(labels, classes), 0.99)
    assert mutual_information(labels, classes) < bound
    classes[:50] = 0
    assert mutual_information(labels, classes) > bound
