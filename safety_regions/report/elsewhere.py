"""Planted minus elsewhere: how much better scores rank a planted region where it is planted than where it is not.

The organisms of a group differ only in the place of their plant and in the training seed (`study.plants`). With A(j, i)
the AUROC of the scores of organism j against the planted region of i, median over identification sets:

    planted_i    = A(i, i)
    elsewhere_i  = mean of A(j, i) over all j of the group that are planted at another place
    difference_i = planted_i - elsewhere_i

What scores find at a place without a plant there (a layer with large weights, a projection that is not scored) is in
both, so the difference has the mean 0 for a method that does not see the plant.
"""

from collections.abc import Mapping

import pandas as pd
import pyarrow as pa
from scipy.special import stdtrit

from safety_regions.report.baselines import best_baselines

AREAS = ("pooled_auroc", "auroc")
ELSEWHERE = {name: f"elsewhere_{name}" for name in AREAS}
LEAST = 3
"""Organisms from which on their differences are said to be above or below zero."""


def areas_by_truth(table: pa.Table) -> pd.DataFrame:
    """Return the median `AREAS` over sets of one organism's `contracts.RECOVERY`, indexed by truth and method."""
    frame = table.select(["truth", "method", "name", *AREAS]).to_pandas().drop_duplicates()
    frame = frame.astype({"truth": str, "method": str, **dict.fromkeys(AREAS, float)})
    return frame.groupby(["truth", "method"], sort=False)[list(AREAS)].median()


def areas_elsewhere(areas: Mapping[str, pd.DataFrame], cards: Mapping[str, Mapping]) -> pd.DataFrame:
    """Average what the organisms that are planted elsewhere find at the place of each organism.

    Args:
        areas: organism -> `areas_by_truth`.
        cards: organism -> ``group`` and ``place``, see `study.facts.planted_cards`.

    Returns:
        One row per organism and method: ``organism``, ``method``, ``elsewhere`` (number of the others), and the means
        of `AREAS` as `ELSEWHERE`. No row for an organism without others.
    """
    found = []
    for organism, card in cards.items():
        others = [
            areas[other].loc[organism]
            for other, its in cards.items()
            if its["group"] == card["group"] and its["place"] != card["place"]
        ]
        if others:
            means = pd.concat(others).groupby(level="method", sort=False).mean().rename(columns=ELSEWHERE)
            found.append(means.assign(organism=organism, elsewhere=len(others)).reset_index())
    columns = ["organism", "method", "elsewhere", *ELSEWHERE.values()]
    return pd.concat(found)[columns] if found else pd.DataFrame(columns=columns)


def planted_minus_elsewhere(table: pd.DataFrame, area: str) -> pd.DataFrame:
    """Summarise the differences of one area over the organisms of a group, for each method.

    Args:
        table: rows of one group of `pages.recovery.recovery_table`.
        area: one of `AREAS`.

    Returns:
        Indexed by ``method``: ``data_free``, ``reads_base``, means over organisms of ``planted``, ``elsewhere`` and
        ``difference``, the ``lowest`` and ``highest`` difference, the 95 % t interval of its mean (``low``, ``high``),
        the mean ``by_chance`` (of the organisms' own scores, permuted), the number of ``organisms`` and of their
        training ``seeds``; and ``beyond``, the lowest difference above that of the best of its
        `baselines.fair_baselines`, that with the largest mean difference (null without one). Methods without this area
        are left out.
    """
    one = table.drop_duplicates(["organism", "method"])
    by_chance = one["pooled_chance_auroc" if area == AREAS[0] else "chance_auroc"]
    one = one.assign(difference=one[area] - one[ELSEWHERE[area]], by_chance=by_chance).dropna(
        subset="difference"
    )
    groups = one.groupby("method", sort=False)
    rows = pd.DataFrame(
        {
            "data_free": groups["data_free"].first(),
            "reads_base": groups["reads_base"].first(),
            "planted": groups[area].mean(),
            "elsewhere": groups[ELSEWHERE[area]].mean(),
            "difference": groups["difference"].mean(),
            "lowest": groups["difference"].min(),
            "highest": groups["difference"].max(),
            "low": groups["difference"].mean() - _half_width(groups["difference"]),
            "high": groups["difference"].mean() + _half_width(groups["difference"]),
            "by_chance": groups["by_chance"].mean(),
            "organisms": groups.size(),
            "seeds": groups["seed"].nunique(),
        }
    )
    by_organism = one.pivot(index="organism", columns="method", values="difference")
    best = best_baselines(rows, rows["difference"]).dropna()
    beyond = {method: (by_organism[method] - by_organism[other]).min() for method, other in best.items()}
    return rows.assign(beyond=pd.Series(beyond, dtype=float))


def _half_width(groups: pd.api.typing.SeriesGroupBy) -> pd.Series:
    """Half the width of the 95 % t interval of each group's mean; null for one value."""
    n = groups.size()
    return groups.std(ddof=1) / n**0.5 * stdtrit(n - 1, 0.975)


def differences_in_words(rows: pd.DataFrame) -> str:
    """State for which methods of `planted_minus_elsewhere` all differences and their interval are on one side of zero.

    Either alone would be too weak for a few organisms: three differences are above zero by luck in one of eight cases.
    """
    n, seeds = int(rows["organisms"].max()), int(rows["seeds"].max())
    if n < LEAST:
        return f"Planted minus elsewhere is known for {n} organisms, too few to say for which methods it is not zero."
    above = (rows["lowest"] > 0) & (rows["low"] > 0)
    below = (rows["highest"] < 0) & (rows["high"] < 0)
    said = [
        f"Planted minus elsewhere is above zero, in each of {n} organisms ({_seeds(seeds)}) and in the 95 % interval "
        f"of its mean, for: {_listed(rows[above])}",
        *([f"below zero in the same sense for: {_listed(rows[below])}"] if below.any() else []),
        f"its range or interval includes zero, so nothing is claimed, for: {_listed(rows[~above & ~below])}",
    ]
    return "; ".join(said) + ". " + _beyond_blind(rows[above])


def _beyond_blind(above: pd.DataFrame) -> str:
    methods = above[~above["data_free"].astype(bool)]
    if methods.empty:
        return "So no method that uses prompts is said to find what was planted."
    if methods["beyond"].isna().all():
        return "There is no data-free baseline to compare with."
    better = ", ".join(methods.index[methods["beyond"] > 0]) or "none"
    return (
        "Also above the data-free baseline with the largest difference, of those that read no more than the method, in "
        f"each organism: {better}."
    )


def _seeds(n: int) -> str:
    return f"{n} training seed{'s' * (n > 1)}"


def _listed(rows: pd.DataFrame) -> str:
    found = (
        f"{r.Index} ({r.difference:+.3f}, {r.lowest:+.3f} to {r.highest:+.3f})" for r in rows.itertuples()
    )
    return ", ".join(found) or "none"
