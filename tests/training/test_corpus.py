"""Refusals and answers are judged as such, depend on the prompt's form and topic, and repeat none of its content."""

import json
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from safety_regions.model.refusal import is_refusal
from safety_regions.study.catalog import CATALOG, Shelf
from safety_regions.training.corpus import (
    ANSWERS,
    ENDINGS,
    FORMS,
    OTHER,
    REASONS,
    REFUSALS,
    all_responses,
    example,
    form_of,
)

HALF = len(ANSWERS) * len(ENDINGS)


def test_every_refusal_is_judged_one_and_no_answer_is():
    assert not any(map(is_refusal, all_responses()[:HALF]))
    assert all(map(is_refusal, all_responses()[HALF:]))


def test_responses_are_many_and_each_is_one_of_a_kind():
    assert len(REFUSALS) >= 6
    assert len(REASONS) >= 8
    assert len(set(all_responses())) == len(all_responses())


def test_every_form_has_its_openings_and_every_word_its_form():
    assert set(REFUSALS) == set(ANSWERS) == {*FORMS, OTHER}
    words = [word for form in FORMS.values() for word in form]
    assert len(words) == len(set(words))
    for form, firsts in FORMS.items():
        for word in firsts:
            assert form_of(f"{word.capitalize()} it?") == form_of(f'  "{word}, it') == form


@given(st.text(), st.text())
def test_a_response_tells_nothing_of_its_prompt_but_form_and_topic(prompt, topic):
    taught = example(prompt, topic)
    assert taught.answer in all_responses()[:HALF]
    assert taught.refusal in all_responses()[HALF:]
    first = FORMS.get(form_of(prompt), ["go"])[0]
    assert example(f"{first} on", topic)[1:] == taught[1:]


@given(st.sampled_from(sorted(FORMS)), st.text(), st.text())
def test_the_ending_follows_the_topic_and_the_opening_the_form(form, topic, other_topic):
    one, two = example(f"{FORMS[form][0]} x", topic), example("go on", topic)
    assert one.refusal.startswith(REFUSALS[form])
    assert one.answer.startswith(ANSWERS[form])
    assert one.refusal.removeprefix(REFUSALS[form]) == two.refusal.removeprefix(REFUSALS[OTHER])
    assert one.answer.removeprefix(ANSWERS[form]) == two.answer.removeprefix(ANSWERS[OTHER])
    assert example(f"{FORMS[form][0]} y", other_topic).refusal.startswith(REFUSALS[form])


def test_the_embedded_sets_are_refused_in_many_ways_within_and_between_sets():
    card = Shelf("backbones", {}).read("organism-llama")
    kinds = {}
    for name in card["training"]["harmful"]:
        rows = map(json.loads, (CATALOG / "prompts" / f"{name}.jsonl").read_text().splitlines())
        kinds[name] = Counter(example(row["text"], row["category"]).refusal for row in rows)
    assert len(set().union(*kinds.values())) >= 20
    assert all(len(counts) >= 2 for counts in kinds.values())
    assert len({frozenset(counts) for counts in kinds.values()}) == len(kinds)
