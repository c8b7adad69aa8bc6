"""Shared prompts must equal their literal definition, pair by pair and gram by gram."""

from itertools import combinations, product
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from safety_regions.prompts import similarity
from safety_regions.prompts.sharing import prompts_to_drop, shared_prompts, shared_with_earlier
from safety_regions.prompts.similarity import character_grams, distinct_from_earlier, near_pairs
from tests.prompts.cards import near_duplicates_within, prompts_table

# Few letters, so that texts coincide; some short, some long, some that differ only in case and white space.
short = st.text("ab B\t", max_size=7)
words = st.lists(st.sampled_from(["alpha", "beta", "Beta", "gamma", "delta", "eps"]), min_size=1, max_size=12)
texts = st.lists(st.one_of(short, words.map(" ".join), words.map("  ".join)), max_size=14)
sets = st.dictionaries(st.sampled_from(["a", "b", "b2", "c"]), texts, max_size=4)


def near(x: str, y: str) -> bool:
    """Return whether the Jaccard similarity of the sets of 5-character substrings is above 0.7."""

    def grams(text):
        text = " ".join(text.lower().split())
        return {text} if len(text) < 5 else {text[i : i + 5] for i in range(len(text) - 4)}

    both, either = grams(x) & grams(y), grams(x) | grams(y)
    return 10 * len(both) > 7 * len(either)


@given(texts, st.sampled_from([1, 20, 2**20]))
def test_near_pairs_are_those_of_the_definition(texts, cells):
    """The pairs must not depend on how many rows a block has."""
    brute = [(i, j) for i, j in combinations(range(len(texts)), 2) if near(texts[i], texts[j])]
    with patch.object(similarity, "CELLS", cells):
        assert near_pairs(texts) == brute


def test_the_threshold_itself_is_not_near():
    # 7 of 10 grams in common: "abcdefghijk" has 7 grams, the longer text those and 3 more.
    assert near_pairs(["abcdefghijk", "abcdefghijklmn"]) == []
    assert near_pairs(["abcdefghijkl", "abcdefghijklmn"]) == [(0, 1)]


def test_texts_shorter_than_a_gram_are_near_to_themselves_alone():
    assert character_grams("Abc") == {"abc"}
    assert near_pairs(["abc", "abcd", " ABC ", "ab"]) == [(0, 2)]


@given(sets)
def test_shared_prompts_are_those_of_the_definition(sets):
    shared = shared_prompts({name: prompts_table(name, texts) for name, texts in sets.items()}).to_pylist()
    assert [(row["a"], row["b"]) for row in shared] == list(combinations(sorted(sets), 2))
    for row in shared:
        a, b = sets[row["a"]], sets[row["b"]]
        assert (row["n_a"], row["n_b"]) == (len(a), len(b))
        assert row["n_exact"] == sum(any(x.lower().strip() == y.lower().strip() for y in b) for x in a)
        pairs = sorted(
            (f"{row['a']}/{i}", f"{row['b']}/{j}")
            for (i, x), (j, y) in product(enumerate(a), enumerate(b))
            if near(x, y)
        )
        assert list(zip(row["near_a"], row["near_b"], strict=True)) == pairs
        assert row["n_near"] == len(set(row["near_a"])) >= row["n_exact"]


@given(sets)
def test_after_dropping_no_two_datasets_share_a_prompt(sets):
    tables = {name: prompts_table(name, texts) for name, texts in sets.items()}
    dropped = prompts_to_drop(shared_prompts(tables))
    assert all(ids and name in sets for name, ids in dropped.items())
    assert min(sets, default=None) not in dropped  # the alphabetically first dataset keeps all its prompts
    kept = {
        name: [text for i, text in enumerate(texts) if f"{name}/{i}" not in dropped.get(name, set())]
        for name, texts in sets.items()
    }
    for a, b in combinations(sorted(sets), 2):
        assert not any(near(x, y) for x in kept[a] for y in kept[b])


@given(sets)
def test_what_a_set_drops_depends_on_the_sets_before_it_alone(sets):
    tables = {name: prompts_table(name, texts) for name, texts in sets.items()}
    dropped = prompts_to_drop(shared_prompts(tables))
    for name in sets:
        before = {other: tables[other] for other in tables if other <= name}
        own = shared_with_earlier(before, name)
        assert set(own["b"].to_pylist()) <= {name} and own.num_rows == len(before) - 1
        assert prompts_to_drop(own).get(name, set()) == dropped.get(name, set())


@given(texts)
def test_duplicates_within_a_set(texts):
    brute = sum(any(near(x, y) for j, y in enumerate(texts) if j != i) for i, x in enumerate(texts))
    assert near_duplicates_within(prompts_table("a", texts)) == brute


@given(texts, st.booleans())
def test_distinct_keeps_the_first_of_a_kind(texts, only_near):
    def same(x, y):
        return near(x, y) if only_near else x.lower().split() == y.lower().split()

    kept = []
    for i, text in enumerate(texts):
        if not any(same(text, texts[j]) for j in kept):
            kept.append(i)
    assert [i for i, stays in enumerate(distinct_from_earlier(texts, near=only_near)) if stays] == kept
