"""How well methods recover a planted region: medians over sets, with chance levels and data-free baselines."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import pandas as pd
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from safety_regions.report.figures.style import COLOURS, GREY, entitle, gridlines, panels, styled

KEYS = ["method", "selection", "refinement"]


class Metric(NamedTuple):
    """A column of a recovery table, its title, the column of its chance level, and whether it describes regions."""

    name: str
    title: str
    chance: str
    of_regions: bool


METRICS = (
    Metric("precision", "precision", "prevalence", True),
    Metric("recall", "recall", "selected", True),
    Metric("iou", "IoU", "chance", True),
    Metric("auroc", "AUROC of scores", "chance_auroc", False),
    Metric("average_precision", "average precision of scores", "chance_average_precision", False),
)
POOLED = (
    Metric("pooled_auroc", "AUROC, pooled", "pooled_chance_auroc", False),
    Metric("pooled_average_precision", "average precision, pooled", "pooled_chance_average_precision", False),
)
"""What is shown instead of the last two metrics where neurons or layers were planted."""
CHANCES = (
    "prevalence",
    "selected",
    "chance",
    "chance_auroc",
    "chance_average_precision",
    "pooled_chance_auroc",
    "pooled_chance_average_precision",
)
MEASURED = (
    "precision",
    "recall",
    "iou",
    "auroc",
    "auroc_within",
    "average_precision",
    "pooled_auroc",
    "pooled_average_precision",
)
BAR = 0.8


def recovery_rows(
    table: pa.Table, data_free: Collection[str], truth: str, base_reading: Collection[str] = ()
) -> pd.DataFrame:
    """Summarise what each method recovers of one planted region, over the identification sets.

    Args:
        table: `contracts.RECOVERY` of one organism.
        data_free: labels of the methods whose scores depend on no prompt.
        truth: the organism whose planted region is recovered.
        base_reading: labels of the methods that read the weights before alignment.

    Returns:
        One row per method, selection and refinement, in the table's order, data-free methods last: `KEYS`,
        ``granularity``, ``data_free``, ``reads_base``, ``sets``; median, ``_min`` and ``_max`` over sets of `MEASURED`;
        and the mean `CHANCES`: ``prevalence`` (precision), ``selected`` (recall), ``chance`` (IoU), and those of the
        areas.
    """
    frame = table.to_pandas().astype({name: str for name in (*KEYS, "granularity", "truth")})
    frame = frame[frame["truth"] == truth]
    frame = frame.astype(dict.fromkeys((*MEASURED, *CHANCES[2:]), float))
    frame = frame.assign(selected=frame["n_selected"] / frame["n_weights"])
    groups = frame.groupby(KEYS, sort=False)
    columns = {"granularity": groups["granularity"].first(), "sets": groups.size()}
    for name in MEASURED:
        columns |= {
            name: groups[name].median(),
            f"{name}_min": groups[name].min(),
            f"{name}_max": groups[name].max(),
        }
    columns |= {name: groups[name].mean() for name in CHANCES}
    rows = pd.DataFrame(columns).reset_index()
    rows.insert(4, "data_free", rows["method"].isin(data_free))
    rows.insert(5, "reads_base", rows["method"].isin(base_reading))
    return rows.sort_values("data_free", kind="stable", ignore_index=True)


@styled
def draw_recovery(rows: pd.DataFrame, where: str) -> Figure:
    """Draw the table of `recovery_rows`: a panel per metric, a bar per region, or per method for metrics of scores."""
    metrics = shown_metrics(rows)
    figure, axes = panels(1, len(metrics), width=2.15, height=0.24 * len(rows) + 0.9, aside=1.9)
    entitle(figure, "Recovery of the planted region (median over sets)", where)
    place, colour = _places(rows), _colours(rows)
    for metric, axis in zip(metrics, axes[0], strict=True):
        shown = rows if metric.of_regions else rows.drop_duplicates("method")
        y = [place[i] if metric.of_regions else _middle(place, rows, r) for i, r in shown["method"].items()]
        _bars(
            axis,
            shown.assign(y=y, colour=[colour[i] if metric.of_regions else GREY for i in shown.index]),
            metric,
        )
        axis.set_ylim(max(place.values()) + 0.7, -0.7)
        axis.set_yticks([])
    _label(axes[0][0], rows, place)
    _legend(figure, rows)
    return figure


def shown_metrics(rows: pd.DataFrame) -> tuple[Metric, ...]:
    """The metrics of an organism's figure, with `POOLED` for areas of weights if its rows have them."""
    return (*METRICS[: -len(POOLED)], *POOLED) if rows[POOLED[0].name].notna().any() else METRICS


def _places(rows: pd.DataFrame) -> dict[int, float]:
    """Return row -> its position; there are gaps between methods, and a larger one before data-free methods."""
    place, y, before = {}, 0.0, None
    for i, row in rows.iterrows():
        if before is not None:
            y += (
                1
                + 0.5 * (row["method"] != before["method"])
                + 0.7 * (row["data_free"] != before["data_free"])
            )
        place[i], before = y, row
    return place


def _middle(place: Mapping[int, float], rows: pd.DataFrame, method: str) -> float:
    at = [place[i] for i in rows.index[rows["method"] == method]]
    return sum(at) / len(at)


def _colours(rows: pd.DataFrame) -> dict[int, str]:
    refinements = list(dict.fromkeys(rows["refinement"]))
    return {i: COLOURS[1 + refinements.index(r) % (len(COLOURS) - 1)] for i, r in rows["refinement"].items()}


def _bars(axis: Axes, shown: pd.DataFrame, metric: Metric) -> None:
    known = shown[shown[metric.name].notna()]
    axis.barh(known["y"], known[metric.name], height=BAR, color=known["colour"], alpha=0.75)
    axis.hlines(
        known["y"], known[f"{metric.name}_min"], known[f"{metric.name}_max"], color="black", linewidth=1
    )
    axis.vlines(
        known[metric.chance], known["y"] - BAR / 2, known["y"] + BAR / 2, color=COLOURS[2], linewidth=2
    )
    for y in shown.loc[shown[metric.name].isna(), "y"]:
        axis.text(0.02, y, "undefined", color=GREY, size=7.5, va="center")
    axis.set_xlim(0, 1)
    axis.set_title(metric.title)
    gridlines(axis, "x")
    axis.set_axisbelow(True)


def _label(axis: Axes, rows: pd.DataFrame, place: Mapping[int, float]) -> None:
    labels = [
        f"{row.method}{' (data-free)' if row.data_free else ''}, {row.selection}, {row.refinement}"
        for row in rows.itertuples()
    ]
    axis.set_yticks(list(place.values()), labels, size=8)
    axis.tick_params(axis="y", length=0)


def _legend(figure: Figure, rows: pd.DataFrame) -> None:
    axis, colours = figure.axes[0], _colours(rows)
    first = rows.drop_duplicates("refinement")
    handles = [
        *(Patch(color=colours[i], alpha=0.75, linewidth=0, label=r) for i, r in first["refinement"].items()),
        Patch(color=GREY, alpha=0.75, linewidth=0, label="scores (independent of the selection)"),
        *axis.plot([], [], color="black", linewidth=1, label="range over sets"),
        *axis.plot([], [], color=COLOURS[2], linewidth=2, label="chance level"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=6, frameon=False)
