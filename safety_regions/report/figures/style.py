"""How every figure looks: readable sizes, colours for every eye, a title that says where it belongs.

Figures are made without pyplot, so there is no global state; each drawing function is wrapped in `styled`.
"""

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Text as outlines: a report looks the same where the fonts are missing. The salt fixes the ids of the file.
RC = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9,
    "figure.titlesize": 12,
    "legend.fontsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "image.cmap": "viridis",
    "savefig.bbox": "tight",
    "svg.fonttype": "path",
    "svg.hashsalt": "safety-regions",
}
# Okabe and Ito's colours, told apart by people with any colour vision; markers repeat the difference.
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY, LIGHT_GREY = "#767676", "#C8C8C8"
PAGE = 11.0
"""Inches a figure may be wide before its panels go to a second row."""

LINES = {
    "chance": {"color": GREY, "linestyle": (0, (4, 2)), "linewidth": 1.2},
    "floor": {"color": COLOURS[2], "linestyle": (0, (1, 1.2)), "linewidth": 1.4},
    "ceiling": {"color": COLOURS[3], "linestyle": "dashdot", "linewidth": 1.2},
}
"""What an IoU is read against looks the same in every figure of one method."""

styled = rc_context(RC)
"""Decorator: draw (or save) with the house's settings, and leave matplotlib's own as they were."""


def grid(panels: int, width: float, height: float, aside: float = 0.0) -> tuple[Figure, list[Axes]]:
    """A figure of ``panels`` equal panels (inches each), side by side while they fit, else two a row.

    ``aside`` leaves inches at the right for a colour bar or a legend.
    """
    columns = panels if panels * width <= PAGE else min(panels, 2)
    rows = -(-panels // columns)
    figure = Figure(figsize=(columns * width + aside, rows * height + 0.6), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in axes[panels:]:
        unused.remove()
    return figure, axes[:panels]


def panels(
    rows: int, columns: int, width: float, height: float, aside: float = 0.0
) -> tuple[Figure, np.ndarray]:
    """A figure of rows by columns of equal panels (inches each), the axes (rows, columns); see `grid`."""
    figure = Figure(figsize=(columns * width + aside, rows * height + 1.0), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def entitle(figure: Figure, title: str, where: str, **place: float | str) -> None:
    """Title the figure; ``where`` is the place in the study, e.g. ``llama / snip / row-0.05``."""
    figure.suptitle(f"{title}\n{where}" if where else title, **place)


def say(axis: Axes, sentence: str) -> None:
    """A panel that has nothing to show says why."""
    axis.set_axis_off()
    axis.text(0.5, 0.5, sentence, ha="center", va="center", color=GREY, transform=axis.transAxes)


def look_of(index: int) -> dict[str, str]:
    """Colour and marker of the ``index``-th line; they repeat only together after 49."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[(index + index // len(COLOURS)) % len(MARKERS)],
    }
