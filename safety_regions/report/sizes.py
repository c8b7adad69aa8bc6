"""Region size, per cent of the units, by layer and projection: what is left after each refinement."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from safety_regions.errors import StudyError, explain
from safety_regions.regions.masks import MATRICES
from safety_regions.report.heatmap import Labels, show_matrix
from safety_regions.report.style import entitle, grid, styled

WHOLE = "all"
"""Stands for the layer and the projection of units that are whole layers."""


def sizes_by_address(tables: Iterable[tuple[str, pa.Table]], names: Sequence[str]) -> pd.DataFrame:
    """Mean region size over the sets at each address.

    Args:
        tables: (refinement, region sizes of its cell as `tables.REGION_SIZES` has them), in the order shown.
        names: the identification sets; other names are left out.

    Returns:
        One row per refinement and address: ``refinement`` (categorical), ``layer`` and ``projection`` (null
        where the unit is a whole layer), ``n_units``, ``n_sets``, ``mean_selected`` (units, mean over sets) and
        ``percent`` of the units.

    Raises:
        StudyError: a set has no sizes.
    """
    found = {refinement: _mean_sizes(table.to_pandas(), names, refinement) for refinement, table in tables}
    frame = pd.concat(found, names=["refinement"]).reset_index(level=0).reset_index(drop=True)
    frame["refinement"] = pd.Categorical(frame["refinement"], categories=list(found))
    return frame


def _mean_sizes(frame: pd.DataFrame, names: Sequence[str], where: str) -> pd.DataFrame:
    missing = sorted(set(names) - set(frame["name"]))
    if missing:
        raise StudyError(
            explain(f"region sizes '{where}'", f"no {', '.join(missing)}", "every identification set")
        )
    # Ordered: pandas takes unordered categories of the same words for equal and keeps the order it finds.
    projection = pd.CategoricalDtype(MATRICES, ordered=True)
    frame = frame[frame["name"].isin(names)].astype({"projection": projection})
    groups = frame.groupby(["layer", "projection"], dropna=False, observed=True, sort=True)
    means = groups.agg(
        n_units=("n_units", "first"), n_sets=("name", "nunique"), mean_selected=("n_selected", "mean")
    ).reset_index()
    return means.assign(percent=100 * means["mean_selected"] / means["n_units"])


@styled
def draw_sizes(sizes: pd.DataFrame, where: str) -> Figure:
    """Draw the table of `sizes_by_address`: layers downwards, projections across, a panel per refinement."""
    refinements = list(sizes["refinement"].cat.categories)
    layers = sorted(sizes["layer"].dropna().unique()) or [None]
    projections = [p for p in MATRICES if p in set(sizes["projection"])] or [None]
    labels = Labels([_word(layer) for layer in layers], [_word(projection) for projection in projections])
    figure, axes = grid(len(refinements), max(0.44 * len(projections) + 0.5, 2.6), 0.2 * len(layers) + 1.1)
    entitle(figure, "Region size, per cent of the units (mean over sets)", where)
    scale = Normalize(0, max(float(sizes["percent"].max()), 1e-9))
    for axis, refinement in zip(axes, refinements, strict=True):
        one = sizes[sizes["refinement"] == refinement]
        axis.set_title(f"{refinement}\n{total_percent(one):.2f} % of all units")
        show_matrix(axis, _matrix(one, layers, projections), labels, scale, digits=1)
        axis.set_xlabel("projection")
        axis.set_ylabel("layer")
    return figure


def total_percent(sizes: pd.DataFrame) -> float:
    """Per cent of all units of the backbone that are in a region, mean over sets."""
    return 100 * float(sizes["mean_selected"].sum()) / float(sizes["n_units"].sum())


def _matrix(sizes: pd.DataFrame, layers: list, projections: list) -> np.ndarray:
    """Per cent (layers, projections); NaN where the backbone has no such address."""
    values = np.full((len(layers), len(projections)), np.nan)
    for layer, projection, percent in zip(sizes["layer"], sizes["projection"], sizes["percent"], strict=True):
        row = 0 if pd.isna(layer) else layers.index(layer)
        values[row, 0 if pd.isna(projection) else projections.index(projection)] = percent
    return values


def _word(value: float | str | None) -> str:
    return WHOLE if value is None else value if isinstance(value, str) else str(int(value))
