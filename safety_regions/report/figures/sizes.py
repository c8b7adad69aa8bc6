"""Region size in per cent of the units, by layer and projection, for each refinement."""

from collections.abc import Iterable, Sequence

import pandas as pd
import pyarrow as pa
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from safety_regions.errors import StudyError, explain
from safety_regions.report.combinations import by_refinement
from safety_regions.report.figures.heatmap import map_grid, places_of, show_matrix
from safety_regions.report.figures.style import entitle, styled
from safety_regions.units.addresses import PARTS


def sizes_by_address(tables: Iterable[tuple[str, pa.Table]], names: Sequence[str]) -> pd.DataFrame:
    """Compute the mean region size over the sets at each address.

    Args:
        tables: (refinement, region sizes of its cell as `contracts.REGION_SIZES` has them), in the order shown.
        names: the identification sets; other names are left out.

    Returns:
        One row per refinement and address: ``refinement`` (categorical), ``layer`` and ``projection`` (null
        where the unit is a whole layer), ``n_units``, ``n_sets``, ``mean_selected`` (units, mean over sets) and
        ``percent`` of the units.

    Raises:
        StudyError: a set has no sizes.
    """
    return by_refinement({name: _mean_sizes(table.to_pandas(), names, name) for name, table in tables})


def _mean_sizes(frame: pd.DataFrame, names: Sequence[str], where: str) -> pd.DataFrame:
    missing = sorted(set(names) - set(frame["name"]))
    if missing:
        raise StudyError(
            explain(f"region sizes '{where}'", f"no {', '.join(missing)}", "every identification set")
        )
    # Ordered: pandas treats unordered categories with the same words as equal and keeps the order it finds.
    projection = pd.CategoricalDtype(PARTS, ordered=True)
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
    places = places_of(sizes)
    figure, axes = map_grid(len(refinements), places)
    entitle(figure, "Region size, per cent of the units (mean over sets)", where)
    scale = Normalize(0, max(float(sizes["percent"].max()), 1e-9))
    for axis, refinement in zip(axes, refinements, strict=True):
        one = sizes[sizes["refinement"] == refinement]
        axis.set_title(f"{refinement}\n{total_percent(one):.2f} % of all units")
        show_matrix(axis, places.matrix(one, "percent"), places.labels, scale, digits=1)
        axis.set_xlabel("projection")
        axis.set_ylabel("layer")
    return figure


def total_percent(sizes: pd.DataFrame) -> float:
    """Return the percentage of all units of the backbone that are in a region, mean over sets."""
    return 100 * float(sizes["mean_selected"].sum()) / float(sizes["n_units"].sum())
