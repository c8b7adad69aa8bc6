"""The dose-response figure shows the effect of every size of region, beside those of its controls."""

import pandas as pd
import pytest

from safety_regions.report.figures.dose_response import dose_rows, draw_dose_response
from tests.behaviour.test_effects import study
from tests.report.test_behaviour import CELL, effects

SIZES = {"row-0.05": 50, "row-0.2": 200}
EFFECTS = {"row-0.05": -0.5, "row-0.2": -2.0}


def tables():
    rows, sizes = [], []
    for selection, n in SIZES.items():
        found = effects(study(effect=EFFECTS[selection]), study(effect=EFFECTS[selection], seed=1))
        rows.append(found.assign(selection=selection))
        for name in "ab":
            arm = {"name": name, "operation": "base", "dose": 1.0, "control": "region", "n_weights": n}
            sizes.append(CELL | {"selection": selection} | arm)
            sizes.append(sizes[-1] | {"control": "core", "n_weights": 7})
    return pd.concat(rows), pd.DataFrame(sizes)


@pytest.mark.slow
def test_rows_go_from_small_regions_to_large_ones():
    rows = dose_rows(*tables())
    own = rows[(rows["against"] == "none") & (rows["measure"] == "refusal_log_odds")]
    assert own["n_weights"].tolist() == [50, 200]
    assert own["effect"].tolist() == pytest.approx([-0.5, -2.0], abs=0.1)
    assert set(rows["name"]) == {"all"}


@pytest.mark.slow
def test_the_figure_shows_region_band_and_marks_at_their_sizes():
    rows = dose_rows(*tables())
    figure = draw_dose_response(rows, "llama / snip")
    odds = figure.axes[0]
    assert odds.get_title() == "raw, base 1"
    [region] = odds.containers
    assert region.lines[0].get_xdata().tolist() == [50, 200]
    own = rows[(rows["against"] == "none") & (rows["measure"] == "refusal_log_odds")]
    assert region.lines[0].get_ydata().tolist() == own["effect"].tolist()
    random = rows[(rows["against"] == "random") & (rows["measure"] == "refusal_log_odds")]
    [band] = [c for c in odds.collections if c.get_paths()[0].vertices.shape[0] > 4]
    corners = band.get_paths()[0].vertices
    assert corners[:, 1].min() == random["control_low"].min()
    assert corners[:, 1].max() == random["control_high"].max()
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["region, 95 % interval over prompts", "random: range of draws", "magnitude"]
