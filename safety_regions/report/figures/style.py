"""Style of all figures: readable sizes, colour-blind-safe colours, a title that names the place in the study.

Figures are made without pyplot, so there is no global state; each drawing function is wrapped in `styled`.
"""

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Text is drawn as outlines, so a report looks the same without the fonts. The salt fixes the ids in the file.
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
# Okabe and Ito's colours, which are distinguishable with any colour vision; markers repeat the distinction. The last
# two are darker than theirs, so that every colour has a contrast of 3 to white.
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B87A00", "#3A96D0")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY, LIGHT_GREY = "#767676", "#C8C8C8"
PAGE = 11.0
"""Maximum width of a figure in inches before its panels are split into rows."""

LINES = {
    "chance": {"color": GREY, "linestyle": (0, (4, 2)), "linewidth": 1.2},
    "floor": {"color": COLOURS[2], "linestyle": (0, (1, 1.2)), "linewidth": 1.4},
    "ceiling": {"color": COLOURS[3], "linestyle": "dashdot", "linewidth": 1.2},
}
"""Line styles of chance, floor and ceiling, the same in every figure of one method."""

styled = rc_context(RC)
"""Decorator: draw (or save) with the settings of this module, and leave the global settings of matplotlib unchanged."""


def grid(panels: int, width: float, height: float, aside: float = 0.0) -> tuple[Figure, list[Axes]]:
    """Create a figure of ``panels`` equal panels (sizes in inches), side by side if they fit, else two per row.

    ``aside`` leaves that many inches on the right for a colour bar or a legend.
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
    """Create a figure of rows by columns of equal panels (inches each), the axes (rows, columns); see `grid`."""
    figure = Figure(figsize=(columns * width + aside, rows * height + 1.0), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def entitle(figure: Figure, title: str, where: str, **place: float | str) -> None:
    """Title the figure; ``where`` is the place in the study, e.g. ``llama / snip / row-0.05``."""
    figure.suptitle(f"{title}\n{where}" if where else title, **place)


def gridlines(axis: Axes, which: str = "both") -> None:
    """Draw faint grid lines at the ticks of ``x``, ``y`` or both axes."""
    axis.grid(axis=which, color="#E0E0E0", linewidth=0.6)


def say(axis: Axes, sentence: str) -> None:
    """Write a sentence into a panel that has nothing to show."""
    axis.set_axis_off()
    axis.text(0.5, 0.5, sentence, ha="center", va="center", color=GREY, transform=axis.transAxes)


def look_of(index: int) -> dict[str, str]:
    """Return colour and marker of the ``index``-th line; a combination repeats only after 49 lines."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[(index + index // len(COLOURS)) % len(MARKERS)],
    }
