"""Splits and halves must partition the prompts, be balanced in every prefix, and depend only on ids and seed."""

import hashlib
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from safety_regions.prompts.splitting import split_prompts

ids = st.lists(st.text(max_size=8), unique=True, max_size=40)
seeds = st.integers(0, 2**31)
fractions = st.floats(0, 1)


def order_of(prompt_ids, places):
    return [prompt_ids[place.number] for place in places]


@given(ids, seeds, fractions)
def test_every_prompt_has_one_place(prompt_ids, seed, fraction):
    places = split_prompts(prompt_ids, seed, fraction)
    assert sorted(place.number for place in places) == list(range(len(prompt_ids)))
    assert sum(place.split == "evaluate" for place in places) == round(fraction * len(prompt_ids))
    assert {place.split for place in places} <= {"evaluate", "identify"}


@given(ids, seeds, fractions)
def test_halves_are_balanced_in_every_prefix_of_a_split(prompt_ids, seed, fraction):
    places = split_prompts(prompt_ids, seed, fraction)
    for split in ("evaluate", "identify"):
        halves = [place.half for place in places if place.split == split]
        for n in range(len(halves) + 1):
            count = Counter(halves[:n])
            assert set(count) <= {1, 2} and 0 <= count[1] - count[2] <= 1


@given(ids, seeds, fractions)
def test_order_is_that_of_the_documented_hash(prompt_ids, seed, fraction):
    def digest(prompt_id):
        return hashlib.sha256(f"{seed}/{prompt_id}".encode()).hexdigest()

    assert order_of(prompt_ids, split_prompts(prompt_ids, seed, fraction)) == sorted(prompt_ids, key=digest)


@given(st.data(), seeds, fractions)
def test_added_rows_and_their_order_move_no_other_prompt(data, seed, fraction):
    prompt_ids = data.draw(ids)
    added = data.draw(st.permutations(prompt_ids + [f"more than eight {i}" for i in range(3)]))
    before = order_of(prompt_ids, split_prompts(prompt_ids, seed, fraction))
    after = order_of(added, split_prompts(added, seed, fraction))
    assert [i for i in after if i in set(prompt_ids)] == before


@given(ids, seeds)
def test_a_larger_evaluate_split_holds_the_smaller_one(prompt_ids, seed):
    def evaluate(fraction):
        places = split_prompts(prompt_ids, seed, fraction)
        return {place.number for place in places if place.split == "evaluate"}

    assert evaluate(0.2) <= evaluate(0.5)


def test_seeds_give_different_splits():
    prompt_ids = [str(i) for i in range(100)]
    orders = {tuple(order_of(prompt_ids, split_prompts(prompt_ids, seed, 0.2))) for seed in range(5)}
    assert len(orders) == 5
