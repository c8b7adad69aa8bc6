"""The figures of a study as its first page has them: some inside the page, all as links.

A figure inside the page is compressed: an SVG of matplotlib shrinks to a tenth, and the page's script unpacks it. So a
page with hundreds of figures stays small and needs no other file.
"""

import gzip
from base64 import b64encode
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

TITLES = {
    "iou": "Pairwise IoU",
    "map": "Median IoU by layer and projection",
    "ladder": "IoU of every pair, from chance to ceiling",
    "margins": "IoU by layer and by projection",
    "kway": "IoU of k sets at once",
    "sizes": "Region sizes",
    "convergence": "Pools of sets",
    "cores": "What k sets have in common",
    "sample_sizes": "IoU against the number of prompts",
    "behaviour": "Effects beside controls",
    "dose_response": "Dose and response",
    "transfer": "IoU beside transfer",
    "constraint": "Refusals along fine-tuning",
    "methods": "Agreement of methods",
    "recovery": "Recovery of the planted region",
    "refusals": "Refusal rates",
}
"""Name of a figure's file -> its title, in the order shown."""

OVERLAP = ("iou", "map")
CHANGED = ("behaviour", "dose_response", "transfer", "constraint")
WHOLE = ("methods", "recovery", "refusals")
INSIDE = (*OVERLAP, *CHANGED, *WHOLE)
"""Figures that the page holds: of overlaps, of changed regions, of whole backbones. The others are links."""


class Figure(NamedTuple):
    """A figure: its ``place`` in the study (backbone, method, selection, as far as it has them), and its files.

    Attributes:
        name: as in `TITLES`.
        svg, tsv: links to the figure and its table, relative to the page.
        packed: the SVG, compressed by gzip, in base64; None for a figure that is a link only.
    """

    name: str
    place: tuple[str, ...]
    svg: str
    tsv: str
    packed: str | None

    @property
    def title(self) -> str:
        return TITLES[self.name]

    @property
    def where(self) -> str:
        return " / ".join(self.place)


def read_figures(paths: Sequence[str | Path], folder: str | Path) -> list[Figure]:
    """Read the figures of a report, in the order of `TITLES` for each place.

    Args:
        paths: their SVGs, each with its table beside it; other files are left out.
        folder: the folder of the page, above all figures.
    """
    files = [Path(path) for path in paths if Path(path).suffix == ".svg"]
    found = [_figure(path, path.relative_to(folder)) for path in files if path.stem in TITLES]
    return sorted(found, key=lambda figure: list(TITLES).index(figure.name))


def _figure(path: Path, link: Path) -> Figure:
    packed = pack(path.read_bytes()) if path.stem in INSIDE else None
    return Figure(path.stem, link.parent.parts, link.as_posix(), link.with_suffix(".tsv").as_posix(), packed)


def read_ladders(folder: str | Path, backbones: Iterable[str]) -> dict[str, str]:
    """Backbone -> the SVG of its ladder, in the folder of the page."""
    return {name: (Path(folder) / name / "ladder.svg").read_text(encoding="utf-8") for name in backbones}


def pack(svg: bytes) -> str:
    """Compress an SVG; the same bytes give the same text."""
    return b64encode(gzip.compress(svg, mtime=0)).decode()
