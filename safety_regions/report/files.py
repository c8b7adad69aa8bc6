"""Write figures, tables and pages: the same input gives the same bytes, and no incomplete file remains."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from safety_regions.formats.files import finished_at
from safety_regions.overlap.gather import UNDEFINED
from safety_regions.report.figures.style import styled


@styled
def save_svg(path: str | Path, figure: Figure) -> None:
    """Write a figure as SVG, without a date."""
    with finished_at(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})


def save_tsv(path: str | Path, frame: pd.DataFrame) -> None:
    """Write the table of a figure, tab-separated, with numbers in full and ``NA`` where undefined."""
    save_text(path, frame.to_csv(sep="\t", index=False, lineterminator="\n", na_rep=UNDEFINED))


def read_tsv(path: str | Path) -> pd.DataFrame:
    """Read a table that `save_tsv` wrote; a frame without columns if the table had none."""
    if not Path(path).read_text(encoding="utf-8").strip():
        return pd.DataFrame()
    return pd.read_csv(path, sep="\t", keep_default_na=False, na_values=[UNDEFINED])


def save_text(path: str | Path, text: str) -> None:
    """Write a page."""
    with finished_at(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
