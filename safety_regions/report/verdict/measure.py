"""The verdict table: every cell of the grid with its overlap, the reference values, and a verdict in words."""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from safety_regions.formats.contracts import IOU
from safety_regions.formats.parquet import iter_rows
from safety_regions.report.baselines import fair_baselines
from safety_regions.report.combinations import FRAME, ROLES, check_pairs, pair_rows
from safety_regions.report.figures.sizes import sizes_by_address, total_percent
from safety_regions.report.verdict.sentences import SIGNIFICANT, verdict_of
from safety_regions.units.names import parse_name

CELL = ["backbone", "method", "selection", "refinement"]
SEPARATOR = "/"
MEANS = (
    "chance",
    "floor",
    "floor_low",
    "floor_high",
    "floor_marginals",
    "half_floor",
    "ceiling",
    "reliability",
)
CORRECTED = ("iou", "half_iou", "normalised", "disattenuated", "disattenuated_floor", "normalised_ordinary")
MEDIANS = (*CORRECTED, "permuted_iou", "permuted_p")
PREFIX = dict(zip(ROLES, ("", "mixed_", "utility_"), strict=True))
IDENTIFICATION = (
    "pairs",
    "defined",
    "iou",
    "iou_min",
    "iou_max",
    *(name for name in FRAME if name != "iou"),
    "normalised_pairs",
    "permuted_pairs",
    "differing_pairs",
    *(f"{name}_se" for name in CORRECTED),
    "room_se",
)
OTHERS = (
    *("pairs", "iou", "floor", "half_floor", "ceiling", "normalised", "disattenuated", "disattenuated_floor"),
    *("iou_se", "normalised_se", "disattenuated_se", "disattenuated_floor_se", "room_se"),
)
"""Columns for pairs with one or two utility sets, as ``mixed_iou``, ``utility_iou`` and so on."""

BESIDE = (
    "n_smallest",
    "n_largest",
    "shared",
    "pool_k",
    "pool_next",
    "pool_next_se",
    "pool_rest",
    "pool_rest_se",
    "pool_shuffled",
    "pool_rest_shuffled",
    "pool_nested",
    "core_k",
    "core",
    "core_chance",
    "core_shuffled",
    "core_mixed_low",
    "core_mixed_high",
    "block_n",
    "block_iou",
    "block_iou_se",
    "same_prompts_iou",
    "same_responses_iou",
    "recovery_iou",
    "recovery_iou_se",
    "recovery_chance",
    "recovery_auroc",
    "recovery_auroc_se",
    "recovery_chance_auroc",
    "recovery_baseline",
)
COUNTS = (
    "n_units",
    "pairs",
    "defined",
    "normalised_pairs",
    "permuted_pairs",
    "differing_pairs",
    "mixed_pairs",
    "utility_pairs",
)


def model_pairs(path: str | Path) -> pa.Table:
    """Return the rows of the overlaps at ``path`` that `measure` uses: pairs, over the whole model.

    For large backbones these are one row in hundreds; the others are never in memory all at once.
    """
    groups = iter_rows(path, IOU, {"level": "model", "k": 2})
    return pa.concat_tables([IOU.schema.empty_table(), *groups]).unify_dictionaries()


def _model_pairs(iou: pa.Table) -> pa.Table:
    return iou.filter(pc.and_(pc.equal(iou["level"].cast(pa.string()), "model"), pc.equal(iou["k"], 2)))


def measure(
    iou: pa.Table,
    sizes: pa.Table,
    names: Sequence[str],
    pools: Mapping[str, pa.Table] | None = None,
    blocks: Mapping[str, pa.Table] | None = None,
    recovery: Mapping[str, pa.Table] | None = None,
    data_free: Collection[str] = (),
    base_reading: Collection[str] = (),
    crossed: Mapping[str, pa.Table] | None = None,
    cores: Mapping[str, pa.Table] | None = None,
) -> pd.DataFrame:
    """Return one row per cell of the grid, in the order of ``sizes``.

    Args:
        iou: the gathered overlaps (`contracts.IOU`).
        sizes: the gathered region sizes (`contracts.REGION_SIZES`).
        names: the identification sets.
        pools: cell (``backbone/method/selection/refinement``) -> `contracts.POOLS`.
        blocks: cell -> `contracts.SAMPLE_SIZES`.
        recovery: planted organism -> `contracts.RECOVERY`.
        data_free: labels of the methods whose scores depend on no prompt.
        base_reading: labels of the methods that read the weights before alignment. The baseline of a method that does
            not is one that does not either.
        crossed: cell -> `contracts.CROSSED`.
        cores: cell -> `contracts.CORES`.

    Returns:
        Columns of `CELL`; ``percent`` (region size in % of all units, mean over sets), ``n_units``, ``whole_layers``;
        then, for the whole model:

        - `IDENTIFICATION`: pairs of identification sets, how many have an IoU (``defined``), medians of `MEDIANS`
          over the pairs that have them, means of `MEANS`, and jackknife standard errors of the medians (``iou_se``
          and so on, see `jackknife`) and of the median of ceiling - half_floor (``room_se``);
        - `OTHERS` for pairs of one identification and one utility set (``mixed_``) and of two utility sets
          (``utility_``);
        - ``n_smallest``, ``n_largest``: fewest and most prompts of a set of these pairs, and ``shared``, the largest
          share of its prompts (0-1) that a set of a pair has in common with the other;
        - ``pool_next``, ``pool_rest``: median IoU of the pool of ``pool_k`` sets (all but one) with the pool of all
          sets and with the left-out set; ``pool_shuffled``, ``pool_rest_shuffled``: the same for pools of shuffled
          sets; ``pool_nested``: 1 if larger pools only lose units by construction, else 0;
        - ``core``: which part of a region (of their mean size) lies in the regions of all ``core_k`` sets;
          ``core_shuffled``: the same for shuffled sets, mean over shuffles; ``core_mixed_low``, ``core_mixed_high``:
          the same for as many groups with the mixed prompts of all sets, smallest and largest regrouping;
          ``core_chance``: for random regions of these sizes;
        - ``permuted_iou``, ``permuted_p``: medians over the ``permuted_pairs`` of identification sets that were split
          at random; ``differing_pairs``: how many of them have a p-value of at most `SIGNIFICANT`;
        - ``same_prompts_iou``, ``same_responses_iou``: median IoU of a set with its own prompts, and with its own
          responses, crossed with those of another set;
        - ``block_iou``: median IoU of two blocks of ``block_n`` prompts of one set, for the largest ``block_n``;
        - ``recovery_...``: medians over sets, compared with the organism's own planted region, and
          ``recovery_baseline``, the best AUROC of a data-free method on the same organism; AUROCs are those of pooled
          scores where neurons or layers were planted;
        - standard errors of these medians, from leaving out one set (of pools, the set that the pool lacks);
        - ``verdict``, see `sentences`. Values that were not measured are null.

    Raises:
        StudyError: a cell lacks a set or a pair of sets.
    """
    model = _model_pairs(iou)
    regions, overlaps = cells_of(sizes), cells_of(model)
    rows = pair_rows((cell, overlaps.get(cell, model.slice(0, 0))) for cell in regions)
    check_pairs(rows[rows["between"] == ROLES[0]], names)
    found = []
    for cell, sized in sizes_by_address(regions.items(), names).groupby("refinement", observed=True):
        labels = dict(zip(CELL, cell.split(SEPARATOR), strict=True))
        fair = fair_baselines(labels["method"], data_free, base_reading)
        found.append(
            labels
            | _size(sized)
            | {
                k: v
                for role, one in _by_role(rows, cell).items()
                for k, v in _role(one, PREFIX[role]).items()
            }
            | _prompts(overlaps.get(cell, model.slice(0, 0)))
            | _pool((pools or {}).get(cell))
            | _core((cores or {}).get(cell))
            | _block((blocks or {}).get(cell))
            | _crossed((crossed or {}).get(cell))
            | _recovered((recovery or {}).get(labels["backbone"]), labels, fair)
        )
    columns = [*CELL, "percent", "n_units", "whole_layers", *IDENTIFICATION]
    columns += [f"{PREFIX[role]}{name}" for role in ROLES[1:] for name in OTHERS]
    frame = pd.DataFrame(found).reindex(columns=[*columns, *BESIDE]).astype(dict.fromkeys(COUNTS, int))
    frame = frame.astype(dict.fromkeys(("n_smallest", "n_largest", "shared"), float))
    return frame.assign(verdict=[verdict_of(record) for record in frame.to_dict("records")])


def cells_of(table: pa.Table) -> dict[str, pa.Table]:
    """Return the rows of each cell (``backbone/method/selection/refinement``), in order of appearance."""
    groups = table.select(CELL).to_pandas().groupby(CELL, observed=True, sort=False).indices
    return {SEPARATOR.join(cell): table.take(pa.array(index)) for cell, index in groups.items()}


def _size(sized: pd.DataFrame) -> dict:
    whole = bool(sized["layer"].isna().all())
    return {"percent": total_percent(sized), "n_units": int(sized["n_units"].sum()), "whole_layers": whole}


def _by_role(rows: pd.DataFrame, cell: str) -> dict[str, pd.DataFrame]:
    one = rows[rows["refinement"] == cell]
    return {role: one[one["between"] == role] for role in ROLES}


def _role(rows: pd.DataFrame, prefix: str) -> dict[str, float]:
    rows = rows.assign(room=rows["ceiling"] - rows["half_floor"])
    values = {
        "pairs": len(rows),
        "defined": int(rows["iou"].count()),
        "iou_min": rows["iou"].min(),
        "iou_max": rows["iou"].max(),
        "normalised_pairs": int(rows["normalised"].count()),
        "permuted_pairs": int(rows["permuted_p"].count()),
        "differing_pairs": int((rows["permuted_p"] <= SIGNIFICANT).sum()),
        **{name: rows[name].median() for name in MEDIANS},
        **{name: rows[name].mean() for name in MEANS},
        **{f"{name}_se": jackknife(rows, name) for name in (*CORRECTED, "room")},
    }
    return {prefix + name: value for name, value in values.items()}


class Jackknife(NamedTuple):
    """Standard errors of statistics over pairs of sets.

    Attributes:
        errors: statistic -> its standard error, NaN if fewer than three sets remain comparable.
        sets: statistic -> how many sets remain comparable.
    """

    errors: pd.Series
    sets: pd.Series


def jackknife(rows: pd.DataFrame, name: str) -> float:
    """Return the standard error of the median of a column over pairs of sets; see `jackknife_of`."""
    return float(jackknife_of(rows, lambda left: left[[name]].median()).errors[name])


def jackknife_of(rows: pd.DataFrame, statistics: Callable[[pd.DataFrame], pd.Series]) -> Jackknife:
    """Return the standard errors of statistics over pairs of sets ``a`` and ``b``, by leaving out one set at a time.

    Pairs share sets, so they are not independent: six pairs of four sets are four sets, not six values. With values
    m_i of a statistic over the pairs without set i, of k sets (Efron and Stein 1981):

        se^2 = (k - 1) / k * sum_i (m_i - mean(m))^2
    """
    sets = sorted({*rows["a"], *rows["b"]})
    left = [statistics(rows[(rows["a"] != one) & (rows["b"] != one)]) for one in sets]
    values = pd.DataFrame(left, columns=statistics(rows).index, dtype=float)
    k = values.count()
    return Jackknife(((k - 1) * values.var(ddof=0)).pow(0.5).where(k >= 3), k)


def _prompts(pairs: pa.Table) -> dict[str, float]:
    """The extremes of the numbers of prompts over all pairs of a cell, whatever their roles."""
    extremes = {"n_smallest": pc.min, "n_largest": pc.max, "shared": pc.max}
    return {name: extreme(pairs[name]).as_py() for name, extreme in extremes.items()}


def _pool(table: pa.Table | None) -> dict[str, float]:
    if table is None:
        return {}
    frame = table.to_pandas().astype({"against": str})
    last = frame[frame["k"] == frame["k"].max()]
    last = last.astype({"shuffled": float})
    left_out = last[last["against"] == "rest"].set_index("order")["b"]
    last = last.assign(a=last["order"].map(left_out), b=last["order"].map(left_out))
    found = {"pool_k": last["k"].max(), "pool_nested": float(last["nested"].any())}
    for kind, shuffled in (("next", "pool_shuffled"), ("rest", "pool_rest_shuffled")):
        rows = last[last["against"] == kind]
        found |= {f"pool_{kind}": rows["iou"].median(), f"pool_{kind}_se": jackknife(rows, "iou")}
        found[shuffled] = rows["shuffled"].median()
    return found


def _core(table: pa.Table | None) -> dict[str, float]:
    if table is None:
        return {}
    frame = table.to_pandas().astype({"kind": str})
    frame = frame.merge(frame[frame["k"] == 1], on=["kind", "draw"], suffixes=("", "_of_one"))
    last = frame[frame["k"] == frame["k"].max()]
    parts = (last["intersection"] / last["intersection_of_one"]).groupby(last["kind"])
    mean, sets = parts.mean(), last[last["kind"] == "sets"]
    return {
        "core_k": last["k"].max(),
        "core": mean.get("sets"),
        "core_chance": (sets["chance_intersection"] / sets["intersection_of_one"]).mean(),
        "core_shuffled": mean.get("shuffled", float("nan")),
        "core_mixed_low": parts.min().get("regrouped"),
        "core_mixed_high": parts.max().get("regrouped"),
    }


def _block(table: pa.Table | None) -> dict[str, float]:
    if table is None:
        return {}
    frame = table.to_pandas()
    frame = frame[frame["pair"].astype(str) == "blocks"]
    largest = frame[frame["n"] == frame["n"].max()]
    sets = {name: largest[name].map(lambda block: parse_name(block).datasets[0]) for name in ("a", "b")}
    error = jackknife(largest.assign(**sets), "iou")
    return {"block_n": largest["n"].max(), "block_iou": largest["iou"].median(), "block_iou_se": error}


def _crossed(table: pa.Table | None) -> dict[str, float]:
    if table is None:
        return {}
    medians = table.to_pandas().astype({"same": str}).groupby("same")["iou"].median()
    return {f"same_{same}_iou": medians[same] for same in ("prompts", "responses")}


def _recovered(
    table: pa.Table | None, labels: Mapping[str, str], baselines: Collection[str]
) -> dict[str, float]:
    if table is None:
        return {}
    frame = table.to_pandas()
    frame = frame[frame["truth"].astype(str) == labels["backbone"]]
    if frame["pooled_auroc"].notna().any():
        frame = frame.assign(auroc=frame["pooled_auroc"], chance_auroc=frame["pooled_chance_auroc"])
    wanted = (frame[CELL[1:]].astype(str) == [labels[name] for name in CELL[1:]]).all(axis=1)
    frame = frame.astype({"auroc": float, "chance_auroc": float, "method": str})
    medians = {
        f"recovery_{name}": frame.loc[wanted, name].median()
        for name in ("iou", "chance", "auroc", "chance_auroc")
    }
    one = frame[wanted].assign(a=frame["name"], b=frame["name"])
    medians |= {f"recovery_{name}_se": jackknife(one, name) for name in ("iou", "auroc")}
    of_baselines = frame[frame["method"].isin(baselines)].groupby("method")["auroc"].median()
    return {**medians, "recovery_baseline": of_baselines.max()}
