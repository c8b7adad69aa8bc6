"""How often each backbone refuses each dataset: the precondition of every region."""

from collections.abc import Iterable, Mapping
from functools import partial
from math import nan, sqrt
from statistics import NormalDist

import pandas as pd
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from safety_regions.report.figures.style import COLOURS, GREY, entitle, grid, gridlines, styled

SPLITS = ("identify", "evaluate")
LOOKS = {
    "identify": {"color": COLOURS[1], "marker": "o", "offset": -0.17, "column": 1.04},
    "evaluate": {"color": COLOURS[2], "marker": "D", "offset": 0.17, "column": 1.15},
}
"""How the splits are drawn: ``offset`` in rows, so that no mark is hidden; ``column``: place of n, in axis widths."""

ORIGINS = {
    "dataset": "(responses from the dataset, not its own)",
    "fixed": "(one response for all prompts, not its own)",
}
"""Addition to the title of a panel whose responses are not the backbone's own."""

Z = NormalDist().inv_cdf(0.975)


def samples_used(tables: Iterable[Mapping]) -> dict[tuple[str, str], dict[str, int]]:
    """Return (backbone, dataset) -> method -> number of prompts used, from the metadata of score ``tables``."""
    used: dict[tuple[str, str], dict[str, int]] = {}
    for metadata in tables:
        cell = used.setdefault((metadata["backbone"], metadata["name"]), {})
        cell[metadata["label"]] = metadata["samples_used"]
    return used


def numbered(responses: pa.Table) -> pa.Table:
    """Responses with a number in place of each text, the same number for the same text, so that no text is shown."""
    place = responses.column_names.index("response")
    numbers = responses["response"].combine_chunks().dictionary_encode().indices
    return responses.set_column(place, "response", numbers)


def refusal_rates(
    responses: Iterable[tuple[str, pa.Table]],
    roles: Mapping[str, str],
    used: Mapping[tuple[str, str], Mapping[str, int]],
) -> pd.DataFrame:
    """Compute refusal rates by backbone, dataset and split.

    Args:
        responses: (backbone, its responses to one dataset with the columns dataset, split, origin, refused, and
            response, as text or `numbered`).
        roles: dataset -> ``identification`` or ``utility``, in the order shown.
        used: (backbone, dataset) -> method -> number of prompts that its regions were found with.

    Returns:
        One row per backbone, dataset, split and origin that was answered: ``backbone``, ``role``, ``dataset``,
        ``split``, ``origin`` (who answered), ``n`` (answers judged), ``n_refused``, ``refusal_rate`` (0-1), its 95 %
        interval ``low``, ``high``, ``n_unfinished`` (responses cut off inside a thought, not judged),
        ``n_distinct`` (different texts among all responses), and one column ``used_{method}`` each (prompts; null where
        the split is evaluate, from which no region is found).
    """
    methods = sorted({method for counts in used.values() for method in counts})
    rows = []
    for backbone, table in responses:
        for (dataset, split, origin), one in table.to_pandas().groupby(
            ["dataset", "split", "origin"], observed=True
        ):
            counts = used.get((backbone, dataset), {}) if split == "identify" else {}
            labels = {"dataset": dataset, "split": split, "origin": origin}
            taken = {f"used_{method}": counts.get(method) for method in methods}
            judged = {**rate(one["refused"]), "n_distinct": one["response"].nunique()}
            rows.append({"backbone": backbone, "role": roles[dataset], **labels, **judged, **taken})
    frame = pd.DataFrame(rows).astype({f"used_{method}": "Int64" for method in methods})
    order = {"backbone": list(dict.fromkeys(frame["backbone"])), "dataset": list(roles), "split": SPLITS}
    frame = frame.astype({name: pd.CategoricalDtype(values, ordered=True) for name, values in order.items()})
    return frame.sort_values(list(order), ignore_index=True)


def rate(refused: pd.Series) -> dict[str, float]:
    """Return count, refusals, their rate (0-1; NaN if nothing was judged) and its 95 % interval (Wilson 1927)."""
    judged = refused.dropna()
    n, hits = len(judged), int(judged.sum())
    unfinished = {"n_unfinished": len(refused) - n}
    if n == 0:
        return {"n": 0, "n_refused": 0, "refusal_rate": nan, "low": 0.0, "high": 1.0, **unfinished}
    middle, spread = hits + Z**2 / 2, Z * sqrt(hits * (n - hits) / n + Z**2 / 4)
    low, high = ((middle + sign * spread) / (n + Z**2) for sign in (-1, 1))
    bounds = {"low": max(0.0, low), "high": min(1.0, high)}
    return {"n": n, "n_refused": hits, "refusal_rate": hits / n, **bounds, **unfinished}


@styled
def draw_refusals(rates: pd.DataFrame) -> Figure:
    """Draw the table of `refusal_rates`: a panel per backbone, identification sets above utility sets."""
    places = _places(rates)
    backbones = list(rates["backbone"].cat.categories)
    figure, axes = grid(len(backbones), 5.4, 0.32 * max(places.values()) + 1.3)
    entitle(figure, "Refusal rate by dataset", "")
    for axis, backbone in zip(axes, backbones, strict=True):
        one = rates[rates["backbone"] == backbone]
        origins = ORIGINS.keys() & set(one["origin"])
        axis.set_title(" ".join([backbone, *(ORIGINS[origin] for origin in origins)]), pad=14)
        _draw_one(axis, one, places)
    handles = [
        axes[0].plot([], [], linestyle="", label=f"{split} split", **_mark(split))[0] for split in SPLITS
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    return figure


def _places(rates: pd.DataFrame) -> dict[str, float]:
    """Dataset -> its row; there is a gap of one row between the roles."""
    shown = rates.drop_duplicates("dataset").sort_values("dataset")
    roles = list(dict.fromkeys(shown["role"]))
    return {
        dataset: row + 1.0 * roles.index(role)
        for row, (dataset, role) in enumerate(zip(shown["dataset"], shown["role"], strict=True))
    }


def _mark(split: str) -> dict:
    look = LOOKS[split]
    return {"color": look["color"], "marker": look["marker"], "markersize": 5}


def _draw_one(axis: Axes, rates: pd.DataFrame, places: Mapping[str, float]) -> None:
    for split, rows in rates.groupby("split", observed=True):
        look = LOOKS[split]
        y = rows["dataset"].map(places).astype(float)
        axis.hlines(
            y + look["offset"], 100 * rows["low"], 100 * rows["high"], color=look["color"], linewidth=1.2
        )
        axis.plot(100 * rows["refusal_rate"], y + look["offset"], linestyle="", clip_on=False, **_mark(split))
        write = partial(axis.text, look["column"], transform=axis.get_yaxis_transform(), size=8)
        for place, text in [(-1.05, "n"), *zip(y, rows["n"].astype(str), strict=True)]:
            write(place, text, va="center", color=look["color"])
    _finish(axis, rates, places)


def _finish(axis: Axes, rates: pd.DataFrame, places: Mapping[str, float]) -> None:
    axis.set_yticks(list(places.values()), list(places))
    axis.set_ylim(max(places.values()) + 0.6, -0.9)
    axis.set_xlim(-2, 102)
    axis.set_xlabel("refused (% of answered prompts)")
    gridlines(axis, "x")
    axis.tick_params(axis="y", length=0)
    for role, datasets in rates.groupby("role")["dataset"]:
        top = min(places[dataset] for dataset in datasets)
        axis.text(1, top - 0.55, f"{role} sets", va="center", color=GREY, size=8, style="italic")
