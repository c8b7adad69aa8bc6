"""The pages of the report: numbers as in the tables, names escaped, never a prompt."""

import re
from itertools import product

import numpy as np
import pandas as pd
import pytest

from safety_regions.errors import StudyError
from safety_regions.report import pages
from safety_regions.report.shared import shared_counts, shared_page
from safety_regions.report.summary import summarize, summary_page
from tests.report import synthetic

CELLS = list(product(["llama", "gemma"], ["snip"], ["row-0.05", "matrix-0.05"], ["raw", "minus-everyday"]))


def gathered(k: int):
    """The gathered tables of a small grid."""
    overlaps, sizes = {}, []
    for seed, cell in enumerate(CELLS):
        found = synthetic.regions(k, 1, cell[-1], units=100, seed=seed)
        overlaps[cell] = synthetic.overlap(found)
        sizes.append(synthetic.sizes(found, cell[-1], cell=cell[:3]))
    return synthetic.iou(overlaps), synthetic.pa.concat_tables(sizes)


def cells_of(page: str) -> list[list[str]]:
    """The texts of every table row of a page."""
    return [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", page)]


def test_the_summary_has_each_cell_with_its_numbers():
    names = sorted(synthetic.NAMES[:4])
    summary = summarize(*gathered(4), names)
    assert summary[["backbone", "method", "selection", "refinement"]].to_numpy().tolist() == [
        list(c) for c in CELLS
    ]
    for seed, (cell, row) in enumerate(zip(CELLS, summary.itertuples(), strict=True)):
        masks = np.concatenate(list(synthetic.regions(4, 1, cell[-1], 100, seed=seed).values()), axis=1)
        both = (masks[:, None] & masks).sum(-1)[np.triu_indices(4, 1)]
        either = (masks[:, None] | masks).sum(-1)[np.triu_indices(4, 1)]
        assert row.median == pytest.approx(np.median(both / either))
        assert (row.min, row.max) == (min(both / either), max(both / either))
        assert row.percent == pytest.approx(100 * masks.mean())
        assert (row.subsets, row.undefined) == (6, 0)


def test_the_summary_page_shows_the_table():
    summary = summarize(*gathered(3), synthetic.NAMES[:3])
    page = summary_page(
        summary, {"Sets": ["fraud, hacking"], "Seed": ["0"]}, {"overlap/iou.parquet": "every IoU"}
    )
    rows = cells_of(page)
    first = summary.iloc[0]
    assert [*CELLS[0], f"{first['percent']:.2f}", "3 of 3", f"{first['median']:.3f}"] == rows[1][:7]
    assert ["overlap/iou.parquet", "every IoU"] in rows and "fraud, hacking" in page
    assert '<th class="number">chance</th>' in page and "floor" not in page.lower()


def test_the_summary_page_explains_floor_and_ceiling_once_known():
    summary = summarize(*gathered(3), synthetic.NAMES[:3]).assign(floor=0.111, ceiling=0.777)
    page = summary_page(summary, {}, {})
    assert cells_of(page)[1][-2:] == ["0.111", "0.777"]
    assert "Floor is" in page and "Ceiling is" in page


def test_the_summary_of_a_single_set_has_sizes_and_no_iou():
    summary = summarize(*gathered(1), synthetic.NAMES[:1])
    assert (summary["subsets"] == 0).all() and summary["median"].isna().all()
    assert summary["percent"].iloc[0] == pytest.approx(5)
    assert cells_of(summary_page(summary, {}, {}))[1][5:] == ["0 of 0", "undefined", ""]


def test_the_summary_refuses_a_cell_without_its_pairs():
    iou, sizes = gathered(3)
    with pytest.raises(StudyError, match=r"llama/snip/row-0.05/raw.*0 pairs"):
        summarize(iou.slice(len(iou) // len(CELLS)), sizes, synthetic.NAMES[:3])


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
    made = pages.page(
        bad,
        pages.paragraph(bad),
        pages.facts({bad: [bad]}),
        pages.heading(bad),
        pages.table([bad], [[bad]], caption=bad),
    )
    assert "<script>" not in made and made.count("&lt;script&gt;") == 9


def test_pages_need_nothing_else():
    page = shared_page(shared_counts(synthetic.shared({("fraud", "hacking"): (1, 1)}, ("fraud", "hacking"))))
    assert not re.search(r"<(script|link|img)|https?:", page)


def test_a_table_of_pages_keeps_the_order_of_its_columns():
    frame = pd.DataFrame({"x": ["a", "b"], "y": ["1", "2"]})
    made = pages.table(list(frame), frame.to_numpy().tolist(), numbers=["y"])
    assert cells_of(made)[1:] == [["a", "1"], ["b", "2"]] and made.count('class="number"') == 3
