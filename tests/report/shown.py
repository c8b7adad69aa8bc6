"""Extract what a figure or a page shows, as numbers and texts that a test can compare."""

import re
from html.parser import HTMLParser

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
    return [
        re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL)
        for row in re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)
    ]


class Elements(HTMLParser):
    """The elements of a page, in order: (tag, attributes)."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.found if name == tag]


def links_of(page: str) -> list[str]:
    """Return the targets of a page's links to other files, each once."""
    targets = (attributes["href"] for attributes in Elements(page).of("a"))
    return list(dict.fromkeys(target for target in targets if not target.startswith("#")))
