"""Names follow the grammar of docs/words.md, and every name has one spelling."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety_regions.errors import StudyError
from safety_regions.units.names import NAME, SHUFFLES, Name, Part, parse_name, pool, with_same_prompts

datasets = st.from_regex(r"[a-z0-9][a-z0-9-]{0,5}", fullmatch=True)
halves, counts = st.sampled_from([None, 1, 2]), st.integers(1, 500)
words = st.none() | datasets
parts = (
    st.builds(Part, datasets, halves, st.none(), st.just(1), words)
    | st.builds(Part, datasets, halves, counts, counts, words)
).filter(lambda part: part.responses != part.dataset)
pools = st.lists(parts, min_size=1, max_size=4, unique_by=lambda part: part.dataset)
names = st.builds(
    lambda members, seed, kind, apart: Name(
        tuple(sorted(members, key=lambda p: (p.dataset, p.half or 0))),
        seed,
        "" if seed is None else kind,
        apart and seed is not None and len(members) > 1,
    ),
    pools,
    st.none() | st.integers(0, 999),
    st.sampled_from(SHUFFLES),
    st.booleans(),
)


@given(names)
def test_a_name_survives_being_written(name):
    assert parse_name(str(name)) == name


@given(pools)
def test_the_order_of_a_pool_does_not_matter(members):
    sets = [part.dataset for part in members]
    assert pool(*sets) == pool(*sets[::-1]) == str(parse_name(pool(*sets)))


def test_the_forms():
    assert parse_name("a") == Name((Part("a"),))
    assert parse_name("a.2") == Name((Part("a", 2),))
    assert parse_name("a+b") == Name((Part("a"), Part("b")))
    assert parse_name("a~7") == Name((Part("a"),), 7)
    assert parse_name("a.1+b~3") == Name((Part("a", 1), Part("b")), 3)
    assert parse_name("a+b.1+b.2").datasets == ("a", "b")
    assert parse_name("a~3+b~3") == Name((Part("a"), Part("b")), 3, "", True)
    assert parse_name("a.1~3r+b@50~3r") == Name((Part("a", 1), Part("b", None, 50)), 3, "r", True)
    assert parse_name("a@25") == Name((Part("a", None, 25),))
    assert parse_name("a^b.1") == Name((Part("a", 1, responses="b"),))
    assert parse_name("a^b").datasets == ("a", "b")
    assert parse_name("a.2@25x3+b@50~1") == Name((Part("a", 2, 25, 3), Part("b", None, 50)), 1)


def test_a_pool_by_its_sets():
    assert [pool("b", "a"), pool("b", "a", size=50), pool("a")] == ["a+b", "a@50+b@50", "a"]


REFUSED = [
    "",
    "A",
    "a.3",
    "a+",
    "a~",
    "a~x",
    "a b",
    "a/b",
    "../a",
    "a+a",
    "a.1+a",
    "a@",
    "a@0",
    "a@25x0",
    "a@25+a",
    "a@25+a@25x2",
    "a^",
    "a^b^c",
    "a.1^b",
    "a~1+b",
    "a~1+b~2",
    "a~1r+b~1m",
    "a~1r+b+c~1r",
    "a~1+a~1",
]


@pytest.mark.parametrize("text", REFUSED)
def test_other_forms_are_refused(text):
    with pytest.raises(StudyError, match="name"):
        parse_name(text)


SPELLINGS = {
    "b+a": "a+b",
    "a^a": "a",
    "a~07": "a~7",
    "a~00": "a~0",
    "a@25x1": "a@25",
    "b+a.1~3": "a.1+b~3",
    "a.2+a.1": "a.1+a.2",
    "b~1r+a~1r": "a~1r+b~1r",
    "a~01+b~01": "a~1+b~1",
}


@pytest.mark.parametrize("text", SPELLINGS)
def test_a_name_has_one_spelling(text):
    """If a name had two spellings, the metadata of a file could contradict its path."""
    with pytest.raises(StudyError) as raised:
        parse_name(text)
    assert f"name '{text}'" in str(raised.value) and f"expected '{SPELLINGS[text]}'" in str(raised.value)
    assert str(parse_name(SPELLINGS[text])) == SPELLINGS[text]


def test_names_that_differ_in_their_shuffle_have_the_same_prompts():
    given = ["a.1~2r", "a~1", "a.1", "a~1m", "a+b~1", "a~1+b~1", "a@5", "a~2+b~2", "a", "a.2"]
    groups = [[str(name) for name in group] for group in with_same_prompts(given)]
    assert groups == [
        ["a.1~2r", "a.1"],
        ["a~1", "a~1m", "a"],
        ["a+b~1"],
        ["a~1+b~1"],
        ["a@5"],
        ["a~2+b~2"],
        ["a.2"],
    ]


def test_the_wildcard_pattern_has_no_groups():
    """Snakemake puts the pattern into a named group, and groups inside it would shift the wildcards."""
    import re

    assert re.compile(NAME).groups == 0
