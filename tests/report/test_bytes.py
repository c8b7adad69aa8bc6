"""Every figure of the report must have the same bytes if it is drawn twice, and contain no date and no prompt."""

from collections.abc import Callable

import pytest
from matplotlib import rcParams
from matplotlib.figure import Figure

from safety_regions.report.combinations import by_count, model_rows, pairs
from safety_regions.report.figures.convergence import draw_convergence, pool_rows
from safety_regions.report.figures.cores import cores, draw_cores
from safety_regions.report.figures.kway import draw_kway
from safety_regions.report.figures.ladder import draw_ladder, ladder
from safety_regions.report.figures.maps import draw_map, iou_by_address
from safety_regions.report.figures.margins import draw_margins, margins
from safety_regions.report.figures.matrices import draw_matrices, tree_of
from safety_regions.report.figures.recovery import draw_recovery, recovery_rows
from safety_regions.report.figures.refusals import draw_refusals, refusal_rates
from safety_regions.report.figures.sample_sizes import draw_sample_sizes, size_rows
from safety_regions.report.figures.sizes import draw_sizes, sizes_by_address
from safety_regions.report.figures.style import RC
from tests.report import synthetic_tables as synthetic
from tests.report.shown import svg

SECRET = "the text of a prompt"
WHERE = "organism / snip / row-0.05"
RECOVERED = synthetic.recovery({"snip": 0.7, "random": 0.5})
NAMES = sorted(synthetic.NAMES[:3])


def overlaps():
    return [("raw", synthetic.framed(synthetic.overlap(synthetic.regions(3, 1, units=60))))]


def matrices() -> Figure:
    table = pairs(model_rows(overlaps(), NAMES), NAMES)
    return draw_matrices(table, WHERE, tree_of(table))


def refusals() -> Figure:
    table = synthetic.responses("fraud", 0.5, prompt=SECRET)
    return draw_refusals(refusal_rates([("llama", table)], {"fraud": "identification"}, {}))


def sizes() -> Figure:
    table = synthetic.sizes(synthetic.regions(3, 1, units=60), "raw")
    return draw_sizes(sizes_by_address([("raw", table)], NAMES), WHERE)


FIGURES: dict[str, Callable[[], Figure]] = {
    "matrices": matrices,
    "kway": lambda: draw_kway(by_count(model_rows(overlaps(), NAMES)), WHERE),
    "sizes": sizes,
    "refusals": refusals,
    "ladder": lambda: draw_ladder(ladder(overlaps()), WHERE),
    "margins": lambda: draw_margins(margins(overlaps()), WHERE),
    "map": lambda: draw_map(
        iou_by_address([("raw", synthetic.membership(synthetic.regions(3, 1, units=60)))]), WHERE
    ),
    "convergence": lambda: draw_convergence(pool_rows([("raw", synthetic.pools(tuple(NAMES)))]), WHERE),
    "cores": lambda: draw_cores(cores([("raw", synthetic.cores())]), WHERE),
    "sample_sizes": lambda: draw_sample_sizes(
        size_rows([("raw", synthetic.sample_sizes(tuple(NAMES)))]), WHERE
    ),
    "recovery": lambda: draw_recovery(recovery_rows(RECOVERED, ["random"], "organism"), WHERE),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_the_same_tables_give_the_same_bytes_without_prompts(tmp_path, name):
    before = {key: rcParams[key] for key in RC}
    data = svg(tmp_path / "1.svg", FIGURES[name]())
    assert {key: rcParams[key] for key in RC} == before and rcParams["svg.hashsalt"] is None
    assert data == svg(tmp_path / "2.svg", FIGURES[name]())
    assert b"<dc:date>" not in data and SECRET.encode() not in data
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.svg", "2.svg"]
