"""The recovery page: planted minus elsewhere for each group of organisms, then each organism beside its baselines."""

from collections.abc import Mapping

import pandas as pd

from safety_regions.report.baselines import best_baselines
from safety_regions.report.elsewhere import AREAS, ELSEWHERE, differences_in_words, planted_minus_elsewhere
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

KINDS = {
    **PLANTS,
    "layers": lambda p: (
        f"{len(p['layers'])} whole decoder block{'s' * (len(p['layers']) > 1)}, one place per organism"
    ),
    "lora": lambda p: (
        f"rank {p['lora']['rank']} update of {len(p['lora']['projections'])} projections in every block"
    ),
}
"""Descriptions of what the plants of a group have in common."""

POOLED_UNITS = {"layers": "layers", "neurons": "neurons"}
"""Units that scores are pooled to, by the key in ``plant``; those of other plants are weights."""

DIFFERENCES = {
    "planted": "AUROC, planted",
    "elsewhere": "elsewhere",
    "difference": "planted minus elsewhere",
    "lowest": "lowest",
    "highest": "highest",
    "low": "mean, 95 % from",
    "high": "to",
    "by_chance": "by chance",
}

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
    "pooled_auroc": "AUROC pooled",
    "pooled_chance_auroc": "by chance  ",
    "pooled_average_precision": "average precision pooled",
    "pooled_chance_average_precision": "by chance   ",
}


def plant_words(plant: Mapping) -> str:
    """Describe the ``plant`` entry of a card (see the schema of organisms) in a phrase."""
    return PLANTS[_key(plant)](plant) + NORM[plant.get("norm", "free")]


def kind_words(plant: Mapping) -> str:
    """Describe what the plants of a group have in common in a phrase, from the plant of one of its organisms."""
    return KINDS[_key(plant)](plant) + NORM[plant.get("norm", "free")]


def _key(plant: Mapping) -> str:
    return next(place for place in PLANTS if place in plant)


def recovery_table(
    rows: Mapping[str, pd.DataFrame], cards: Mapping[str, Mapping], others: pd.DataFrame
) -> pd.DataFrame:
    """Stack the medians of all organisms.

    Args:
        rows: organism -> the table of `recovery.recovery_rows`.
        cards: organism -> its card in the report; see `study.facts.planted_cards`.
        others: the table of `elsewhere.areas_elsewhere`.

    Returns:
        ``group`` (its first organism), ``kind`` (of its plants, in words), ``organism``, ``family``, ``plant`` (in
        words), ``place``, training ``seed``, ``units`` (that scores are pooled to), `recovery.KEYS`, ``granularity``,
        ``data_free``, ``reads_base``, ``sets``, the medians of `recovery.MEASURED`, the chance levels `CHANCES`, the
        number of organisms planted ``elsewhere`` and the means of their AUROCs, `ELSEWHERE`.
    """
    labelled = []
    for name, one in rows.items():
        card = cards[name]
        labels = {key: card[key] for key in ("group", "family", "place", "seed")}
        labels |= {"plant": plant_words(card["plant"]), "kind": kind_words(card["plant"]), "organism": name}
        labelled.append(one.assign(**labels, units=POOLED_UNITS.get(_key(card["plant"]), "weights")))
    first = ["group", "kind", "organism", "family", "plant", "place", "seed", "units", *KEYS, "granularity"]
    table = pd.concat(labelled, ignore_index=True)[
        [*first, "data_free", "reads_base", "sets", *MEASURED, *CHANCES]
    ]
    table = table.merge(others, how="left", on=["organism", "method"])
    return table.fillna({"elsewhere": 0}).astype(
        {"elsewhere": int, **dict.fromkeys(ELSEWHERE.values(), float)}
    )


def beyond_baselines(rows: pd.DataFrame) -> str:
    """State which methods exceed the best data-free AUROC, and their own by chance, by `MARGIN` on one organism.

    Each is compared with the best of its own `baselines.fair_baselines`. The AUROC is that of pooled scores where
    neurons were planted. Of whole layers, nothing is said.
    """
    scores = rows.drop_duplicates("method").set_index("method")
    units = scores["units"].iloc[0]
    pooled = "pooled_" if units != "weights" else ""
    aurocs, by_chance = scores[f"{pooled}auroc"], scores[f"{pooled}chance_auroc"]
    if units == "layers":
        return "Whole layers are planted: too few units to say which scores find them in this organism alone."
    others = aurocs[~scores["data_free"]]
    best = best_baselines(scores, aurocs)[others.index]
    if best.isna().all():
        return "No data-free baseline has an AUROC for this organism, so methods are not compared with one."
    levels = best.map(aurocs).astype(float)
    better = (others - levels > MARGIN) & (others - by_chance[others.index] > MARGIN)
    best = ", or ".join(f"{name}, AUROC {aurocs[name]:.3f}" for name in best.dropna().unique())
    sides = {
        f"Methods whose scores of {units} exceed the best data-free baseline that reads no more than they do ({best}) "
        f"and their own AUROC by chance by more than {MARGIN:g}": others[better],
        "methods that do not": others[~better & others.notna()],
    }
    said = [f"{words}: {_listed(side)}" for words, side in sides.items()]
    missing = list(others.index[others.isna()])
    said += [f"methods without an AUROC: {', '.join(missing)}"] if missing else []
    return "; ".join(said) + "."


def _listed(aurocs: pd.Series) -> str:
    return ", ".join(f"{method} ({value:.3f})" for method, value in aurocs.items()) or "none"


def recovery_page(table: pd.DataFrame) -> str:
    """Render the table of `recovery_table` as a page: planted minus elsewhere of each group, then its organisms."""
    groups = [
        {**one.iloc[0][["family", "kind"]], **_differences(one), "organisms": _organisms(one)}
        for _, one in table.groupby("group", sort=False)
    ]
    return render("recovery.html.j2", groups=groups)


def _differences(group: pd.DataFrame) -> dict:
    """A sentence and a table: a row for each area and method; none if no organism is planted elsewhere."""
    areas = [area for area in AREAS if (group[area] - group[ELSEWHERE[area]]).notna().any()]
    if not areas:
        return {"sentence": "No organism that differs only in the place of the plant.", "differences": None}
    found = {area: planted_minus_elsewhere(group, area) for area in areas}
    rows = [
        [units, _method(r), *(_number(r[name]) for name in DIFFERENCES), str(r["organisms"]), str(r["seeds"])]
        for units, rows in zip((group["units"].iloc[0], "weights"), found.values(), strict=False)
        for r in rows.reset_index().to_dict("records")
    ]
    counts = ("organisms", "seeds")
    numbers = [*DIFFERENCES.values(), *counts]
    return {
        "sentence": differences_in_words(found[areas[0]]),
        "differences": Table(["scores of", "method", *numbers], rows, numbers=numbers),
    }


def _organisms(group: pd.DataFrame) -> list[dict]:
    shown = {key: name for key, name in SHOWN.items() if group[key].notna().any()}
    organisms = []
    for name, one in group.groupby("organism", sort=False):
        rows = [
            [_method(r), r["selection"], r["refinement"], *(_number(r[key]) for key in shown)]
            for r in one.to_dict("records")
        ]
        organisms.append(
            {
                "name": name,
                **one.iloc[0][["family", "plant", "seed"]],
                "sentence": beyond_baselines(one),
                "found": Table([*KEYS, *shown.values()], rows, numbers=shown.values()),
            }
        )
    return organisms


def _method(record: Mapping) -> str:
    return record["method"] + (" (data-free)" if record["data_free"] else "")


def _number(value: float) -> str:
    return "–" if pd.isna(value) else f"{value:.3f}"
