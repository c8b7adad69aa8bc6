"""One panel of numbers on colours: a matrix with its numbers in the cells."""

from collections.abc import Collection
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

Cell = tuple[int, int]
WHITE = "#FFFFFF"
GREY = "#C8C8C8"
UNDEFINED = "–"


class Labels(NamedTuple):
    """Words at the rows (top to bottom) and at the columns of a matrix."""

    rows: list[str]
    columns: list[str]


def show_matrix(
    axis: Axes, values: np.ndarray, labels: Labels, scale: Normalize, digits: int, grey: Collection[Cell] = ()
) -> AxesImage:
    """Draw ``values`` (rows, columns), the first row at the top as in a printed table.

    Args:
        values: a NaN is a white cell with a dash.
        digits: decimals of the numbers in the cells.
        grey: cells (row, column) that are not to be read: grey, without a number.
    """
    colours = matplotlib.colormaps[matplotlib.rcParams["image.cmap"]].with_extremes(bad=WHITE)
    image = axis.imshow(np.ma.masked_invalid(values), norm=scale, cmap=colours, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if (row, column) in grey:
            axis.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, color=GREY, linewidth=0))
            continue
        text = f"{value:.{digits}f}" if np.isfinite(value) else UNDEFINED
        # Inside its cell: out of the layout, which would measure each of a thousand numbers several times.
        look = {"ha": "center", "va": "center", "size": 7.5, "in_layout": False}
        axis.text(column, row, text, color=_ink(image, value), **look)
    _rule(axis, labels)
    return image


def _rule(axis: Axes, labels: Labels) -> None:
    """Names at the rows and columns, white lines between the cells."""
    axis.set_xticks(range(len(labels.columns)), labels.columns)
    axis.set_yticks(range(len(labels.rows)), labels.rows)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.set_xticks(np.arange(len(labels.columns) + 1) - 0.5, minor=True)
    axis.set_yticks(np.arange(len(labels.rows) + 1) - 0.5, minor=True)
    axis.grid(which="minor", color=WHITE, linewidth=1)
    axis.tick_params(which="minor", length=0)


def _ink(image: AxesImage, value: float) -> str:
    """Black or white, whichever is read better on the colour of ``value``."""
    if not np.isfinite(value):
        return "black"
    red, green, blue, _ = image.cmap(image.norm(value))
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
