"""The language of names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety_regions.errors import StudyError
from safety_regions.names import NAME, Name, Part, parse_name

datasets = st.from_regex(r"[a-z0-9][a-z0-9-]{0,5}", fullmatch=True)
parts = st.builds(Part, datasets, st.sampled_from([None, 1, 2]))
pools = st.lists(parts, min_size=1, max_size=4, unique_by=lambda part: part.dataset)
names = st.builds(
    lambda pool, seed: Name(tuple(sorted(pool, key=lambda p: (p.dataset, p.half or 0))), seed),
    pools,
    st.none() | st.integers(0, 999),
)


@given(names)
def test_a_name_survives_being_written(name):
    assert parse_name(str(name)) == name


@given(pools)
def test_the_order_of_a_pool_does_not_matter(pool):
    written = ["+".join(str(Name((part,))) for part in order) for order in (pool, pool[::-1])]
    assert parse_name(written[0]) == parse_name(written[1])


def test_the_forms():
    assert parse_name("a") == Name((Part("a"),))
    assert parse_name("a.2") == Name((Part("a", 2),))
    assert parse_name("a+b") == Name((Part("a"), Part("b")))
    assert parse_name("a~7") == Name((Part("a"),), 7)
    assert parse_name("b+a.1~3") == Name((Part("a", 1), Part("b")), 3)
    assert parse_name("b.1+b.2+a").datasets == ("a", "b")


@pytest.mark.parametrize("text", ["", "A", "a.3", "a+", "a~", "a~x", "a b", "a/b", "../a", "a+a", "a.1+a"])
def test_other_forms_are_refused(text):
    with pytest.raises(StudyError, match="name"):
        parse_name(text)


def test_the_wildcard_pattern_has_no_groups():
    """Snakemake wraps it in a named group; groups of its own would shift the wildcards."""
    import re

    assert re.compile(NAME).groups == 0
