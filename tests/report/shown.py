"""Extract what a figure or a page shows, as numbers and texts that a test can compare."""

import re

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from safety_regions.report.files import save_svg


def words(figure: Figure) -> list[str]:
    """Return every text of a figure."""
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


def svg(path, figure: Figure) -> bytes:
    save_svg(path, figure)
    return path.read_bytes()


def marks(axis: Axes, **look) -> list[list[float]]:
    """Return the sorted points [x, y] of the axis' lines whose properties are ``look``; lines for legends have none."""
    lines = [line for line in axis.lines if all(getattr(line, f"get_{key}")() == look[key] for key in look)]
    return sorted([float(x), float(y)] for line in lines for x, y in zip(*line.get_data(), strict=True))


def values(numbers) -> list[float]:
    """Return the defined numbers, sorted."""
    numbers = np.array(list(numbers), dtype=float)
    return sorted(numbers[~np.isnan(numbers)].tolist())


def cells_of(page: str) -> list[list[str]]:
    """Return the texts of every table row of a page."""
    return [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", page)]
