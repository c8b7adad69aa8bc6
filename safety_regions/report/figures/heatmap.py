"""Draw one panel of numbers on colours: a matrix with its numbers in the cells, or a map of layers by projections."""

from collections.abc import Collection
from typing import NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from safety_regions.report.figures.style import LIGHT_GREY, grid
from safety_regions.units.addresses import PARTS

Cell = tuple[int, int]
WHITE = "#FFFFFF"
NO_NUMBER = "–"
WHOLE = "all"
"""Label for the layer and the projection of units that are whole layers."""


class Labels(NamedTuple):
    """Labels of the rows (top to bottom) and columns of a matrix."""

    rows: list[str]
    columns: list[str]


class Places(NamedTuple):
    """The layers (downwards) and projections (across) of a map; None if units are whole layers."""

    layers: list[int | None]
    projections: list[str | None]

    @property
    def labels(self) -> Labels:
        return Labels(*([WHOLE if place is None else str(place) for place in side] for side in self))

    def matrix(self, frame: pd.DataFrame, column: str) -> np.ndarray:
        """Return a column of numbers by address (layers, projections); NaN where the backbone has no such address."""
        values = np.full((len(self.layers), len(self.projections)), np.nan)
        for layer, projection, number in zip(frame["layer"], frame["projection"], frame[column], strict=True):
            row = 0 if pd.isna(layer) else self.layers.index(layer)
            values[row, 0 if pd.isna(projection) else self.projections.index(projection)] = number
        return values


def places_of(frame: pd.DataFrame) -> Places:
    """Return the layers and projections that occur in the columns of these names."""
    layers = [int(layer) for layer in sorted(frame["layer"].dropna().unique())]
    projections = [name for name in PARTS if name in set(frame["projection"].dropna())]
    return Places(layers or [None], projections or [None])


def map_grid(panels: int, places: Places, aside: float = 0.0) -> tuple[Figure, list[Axes]]:
    """Create panels large enough for a number at every address; see `style.grid`."""
    width, height = 0.44 * len(places.projections) + 0.5, 0.2 * len(places.layers) + 1.1
    return grid(panels, max(width, 2.6), height, aside)


def show_matrix(
    axis: Axes, values: np.ndarray, labels: Labels, scale: Normalize, digits: int, grey: Collection[Cell] = ()
) -> AxesImage:
    """Draw ``values`` (rows, columns), the first row at the top as in a printed table.

    Args:
        values: a NaN is a white cell with a dash.
        digits: decimals of the numbers in the cells.
        grey: cells (row, column) without meaning, drawn in grey without a number.
    """
    colours = matplotlib.colormaps[matplotlib.rcParams["image.cmap"]].with_extremes(bad=WHITE)
    image = axis.imshow(np.ma.masked_invalid(values), norm=scale, cmap=colours, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if (row, column) in grey:
            axis.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, color=LIGHT_GREY, linewidth=0))
            continue
        text = f"{value:.{digits}f}" if np.isfinite(value) else NO_NUMBER
        # Inside its cell: out of the layout, which would measure each of a thousand numbers several times.
        look = {"ha": "center", "va": "center", "size": 7.5, "in_layout": False}
        axis.text(column, row, text, color=_ink(image, value), **look)
    _rule(axis, labels)
    return image


def _rule(axis: Axes, labels: Labels) -> None:
    """Label the rows and columns, and draw white lines between the cells."""
    axis.set_xticks(range(len(labels.columns)), labels.columns)
    axis.set_yticks(range(len(labels.rows)), labels.rows)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.set_xticks(np.arange(len(labels.columns) + 1) - 0.5, minor=True)
    axis.set_yticks(np.arange(len(labels.rows) + 1) - 0.5, minor=True)
    axis.grid(which="minor", color=WHITE, linewidth=1)
    axis.tick_params(which="minor", length=0)


def _ink(image: AxesImage, value: float) -> str:
    """Return black or white, whichever is more readable on the colour of ``value``."""
    if not np.isfinite(value):
        return "black"
    red, green, blue, _ = image.cmap(image.norm(value))
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
