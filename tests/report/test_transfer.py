"""The figure of overlap and transfer shows the rows of its table."""

import numpy as np
import pandas as pd
import pytest

from safety_regions.report.figures.transfer import draw_transfer, shown_pairs
from tests.report.shown import marks, words

CELL = {"backbone": "llama", "method": "snip", "selection": "row-0.05"}
NAMES = ["fraud", "hacking", "stalking", "weapons"]


def pairs(names=NAMES, refinements=("raw",), operations=(("base", 0.5), ("base", 1.0))):
    rng, rows = np.random.default_rng(0), []
    for refinement in refinements:
        for operation, dose in operations:
            iou, alike = ({}, {})
            for a in names:
                for b in names:
                    key = tuple(sorted((a, b)))
                    iou.setdefault(key, None if a == b else rng.random())
                    alike.setdefault(key, None if a == b else rng.random())
                    row = {"region_of": a, "prompts_of": b, "effect": -rng.random() * dose}
                    row |= {"iou": iou[key], "similarity": alike[key], "measure": "refusal_log_odds"}
                    rows.append(CELL | {"refinement": refinement, "operation": operation, "dose": dose} | row)
    return pd.DataFrame(rows)


def mantel_rows(mantel=0.4):
    row = {"refinement": "raw", "operation": "base", "dose": 1.0, "measure": "refusal_log_odds"}
    return pd.DataFrame([CELL | row | {"mantel": mantel, "mantel_p": None if mantel is None else 0.03}])


def test_the_largest_dose_of_each_operation_is_shown():
    rows = shown_pairs(pairs(operations=(("base", 0.5), ("base", 1.0), ("zero", 1.0))))
    assert set(zip(rows["operation"], rows["dose"], strict=True)) == {("base", 1.0), ("zero", 1.0)}
    assert len(rows) == 2 * 16
    other = pairs().assign(measure="kl")
    assert shown_pairs(other).empty


@pytest.mark.parametrize(
    ("names", "refinements"), [(NAMES, ("raw",)), (NAMES[:2], ("raw", "minus-everyday"))]
)
def test_every_effect_and_iou_is_a_cell_and_every_pair_a_point(names, refinements):
    rows = shown_pairs(pairs(names, refinements))
    figure = draw_transfer(rows, mantel_rows(), "llama / snip / row-0.05")
    assert len(figure.axes) == 3 * len(refinements)
    for refinement, line in zip(refinements, np.reshape(figure.axes, (-1, 3)), strict=True):
        one = rows[rows["refinement"] == refinement]
        assert line[0].get_title().startswith(refinement)
        off = one[one["region_of"] != one["prompts_of"]]
        shown = [[text.get_text() for text in axis.texts] for axis in line[:2]]
        assert shown == [[f"{v:.2f}" for v in part] for part in (off["iou"], one["effect"])]
        half = off[off["region_of"] < off["prompts_of"]]
        assert marks(line[2], marker="o") == sorted(half[["iou", "similarity"]].to_numpy().tolist())


def test_the_mantel_test_is_told_or_missing():
    rows = shown_pairs(pairs())
    assert any("Mantel r 0.40, p 0.030" in text for text in words(draw_transfer(rows, mantel_rows(), "x")))
    assert any("needs four sets" in text for text in words(draw_transfer(rows, mantel_rows(None), "x")))


def test_without_effects_the_panels_say_so():
    assert "needs two sets" in words(draw_transfer(shown_pairs(pairs().iloc[:0]), mantel_rows(), "x"))
