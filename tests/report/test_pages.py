"""The pages of the report must show the tables' numbers, escape names, and never show a prompt."""

import re

import pytest
from jinja2 import UndefinedError

from safety_regions.report.pages.render import Table, render
from safety_regions.report.pages.shared_prompts import shared_counts, shared_page
from tests.report import synthetic_tables as synthetic
from tests.report.shown import cells_of


def test_shared_prompts_are_listed_where_there_are_any():
    table = synthetic.shared({("forgery", "fraud"): (1, 3), ("drugs", "theft"): (0, 2)}, synthetic.NAMES[:8])
    counts = shared_counts(table)
    assert len(counts) == 28 and counts["n_near"].sum() == 5
    assert counts.iloc[0][["a", "b", "n_exact", "n_near", "n_near_b"]].tolist() == [
        "forgery",
        "fraud",
        1,
        3,
        3,
    ]
    page = shared_page(counts)
    assert cells_of(page)[1:] == [
        ["forgery", "fraud", "100", "120", "1", "3", "3.0", "2.5"],
        ["drugs", "theft", "100", "120", "0", "2", "2.0", "1.7"],
    ]
    assert "26 of 28 pairs" in page and "forgery/0" not in page


@pytest.mark.parametrize("names, sentence", [(("fraud", "hacking"), "1 of 1 pairs"), (("fraud",), "One set")])
def test_shared_prompts_of_studies_without_any(names, sentence):
    page = shared_page(shared_counts(synthetic.shared({}, names)))
    assert sentence in page and "<table>" not in page


def test_pages_escape_what_they_show():
    bad = "<script>alert(1)</script>"
    groups = [
        {"family": bad, "kind": bad, "sentence": bad, "differences": Table([bad], [[bad]]), "organisms": []}
    ]
    made = render("recovery.html.j2", groups=groups)
    assert "<script>" not in made and made.count("&lt;script&gt;") == 5


def test_a_value_that_a_page_lacks_is_an_error():
    with pytest.raises(UndefinedError, match="pairs"):
        render("shared_prompts.html.j2", shared=Table([], []))


def test_pages_need_nothing_else():
    page = shared_page(shared_counts(synthetic.shared({("fraud", "hacking"): (1, 1)}, ("fraud", "hacking"))))
    assert not re.search(r"<(script|link|img)|https?:", page)


def test_a_table_of_pages_keeps_the_order_of_its_columns():
    table = Table(["x", "y"], [["a", "1"], ["b", "2"]], numbers=["y"])
    made = render(
        "recovery.html.j2",
        groups=[{"family": "", "kind": "", "sentence": "", "differences": table, "organisms": []}],
    )
    assert cells_of(made)[1:] == [["a", "1"], ["b", "2"]] and made.count('class="number"') == 3
