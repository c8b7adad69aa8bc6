"""The recovery page: all planted organisms in one table, and which methods beat the data-free baselines."""

from collections.abc import Mapping

import pandas as pd

from safety_regions.report.figures.recovery import CHANCES, KEYS, MEASURED
from safety_regions.report.pages.render import Table, render

MARGIN = 0.05
"""Difference in AUROC by which a method must exceed the best data-free baseline to count as better."""

NORM = {"free": "", "matched": ", norms kept as before alignment"}
PLANTS = {
    "layers": lambda p: f"whole decoder blocks {', '.join(map(str, p['layers']))}",
    "neurons": lambda p: f"{100 * p['neurons']:g} % of the feed-forward neurons of every block",
    "weights": lambda p: f"{100 * p['weights']:g} % of the weights of every projection",
    "lora": lambda p: (
        f"rank {p['lora']['rank']} update of {', '.join(p['lora']['projections'])} in every block"
    ),
}
"""Descriptions of what alignment could change, by the key in the ``plant`` entry of a card."""

SHOWN = {
    "precision": "precision",
    "prevalence": "prevalence",
    "recall": "recall",
    "selected": "selected",
    "iou": "IoU",
    "chance": "chance",
    "auroc": "AUROC",
    "chance_auroc": "by chance",
    "auroc_within": "AUROC within",
    "average_precision": "average precision",
    "chance_average_precision": "by chance ",
}


def plant_words(plant: Mapping) -> str:
    """Describe the ``plant`` entry of a card (see the schema of organisms) in a phrase."""
    place = next(place for place in PLANTS if place in plant)
    return PLANTS[place](plant) + NORM[plant.get("norm", "free")]


def recovery_table(rows: Mapping[str, pd.DataFrame], cards: Mapping[str, Mapping]) -> pd.DataFrame:
    """Stack the medians of all organisms.

    Args:
        rows: organism -> the table of `recovery.recovery_rows`.
        cards: organism -> ``family`` and ``plant``.

    Returns:
        ``organism``, ``family``, ``plant`` (in words), `recovery.KEYS`, ``granularity``, ``data_free``, ``sets``, the
        medians of `recovery.MEASURED`, and the chance levels `CHANCES`.
    """
    labelled = [
        one.assign(organism=name, family=cards[name]["family"], plant=plant_words(cards[name]["plant"]))
        for name, one in rows.items()
    ]
    first = ["organism", "family", "plant", *KEYS, "granularity", "data_free", "sets"]
    return pd.concat(labelled, ignore_index=True)[[*first, *MEASURED, *CHANCES]]


def beyond_baselines(rows: pd.DataFrame) -> str:
    """State which methods exceed the best data-free AUROC, and their own by chance, by `MARGIN` on one organism."""
    scores = rows.drop_duplicates("method").set_index("method")
    if scores["chance_auroc"].isna().all():
        return (
            "Whole layers are planted: too few units to say which scores find them. Plant each layer in turn."
        )
    baseline = scores.loc[scores["data_free"], "auroc"].dropna()
    others = scores.loc[~scores["data_free"], "auroc"]
    if baseline.empty:
        return "No data-free baseline has an AUROC for this organism, so methods are not compared with one."
    better = (others - baseline.max() > MARGIN) & (others - scores["chance_auroc"][others.index] > MARGIN)
    best = f"{baseline.idxmax()}, AUROC {baseline.max():.3f}"
    sides = {
        f"Methods that exceed the best data-free baseline ({best}) and their own AUROC by chance by more than "
        f"{MARGIN:g}": others[better],
        "methods that do not": others[~better & others.notna()],
    }
    said = [f"{words}: {_listed(side)}" for words, side in sides.items()]
    missing = list(others.index[others.isna()])
    said += [f"methods without an AUROC: {', '.join(missing)}"] if missing else []
    return "; ".join(said) + "."


def _listed(aurocs: pd.Series) -> str:
    return ", ".join(f"{method} ({value:.3f})" for method, value in aurocs.items()) or "none"


def recovery_page(table: pd.DataFrame) -> str:
    """Render the table of `recovery_table` as a page: a heading, a sentence and a table for each organism."""
    organisms = []
    for name, one in table.groupby("organism", sort=False):
        rows = [_row(record) for record in one.to_dict("records")]
        organisms.append(
            {
                "name": name,
                **one.iloc[0][["family", "plant"]],
                "sentence": beyond_baselines(one),
                "found": Table([*KEYS, *SHOWN.values()], rows, numbers=SHOWN.values()),
            }
        )
    return render("recovery.html.j2", organisms=organisms)


def _row(record: Mapping) -> list[str]:
    method = record["method"] + (" (data-free)" if record["data_free"] else "")
    numbers = ("–" if pd.isna(record[name]) else f"{record[name]:.3f}" for name in SHOWN)
    return [method, record["selection"], record["refinement"], *numbers]
