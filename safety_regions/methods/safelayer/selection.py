"""Regions of contiguous layers: where the gap grows (``gap``), and what the scaling search found (``range``).

Both are regions over the single address "layers", one bit per layer, with scope global: chance is the overlap of
equally many layers drawn at random from the whole model. Contiguous ranges overlap more often than that, so the
permutation null (floor), from shuffled evidence, is the better reference.
"""

from pathlib import Path

import numpy as np

from safety_regions.errors import StudyError, explain
from safety_regions.formats.contracts import LAYER_SCORES, LAYER_SWEEP, Contract
from safety_regions.formats.parquet import open_table, read_metadata
from safety_regions.formats.region import Region
from safety_regions.formats.score_file import NOT_METADATA
from safety_regions.methods.safelayer.onset import Span
from safety_regions.units.addresses import LAYERS


def select(scores: str | Path, selection: str, sweep: str | Path | None, allow_empty: bool) -> Region:
    """The layers of a selection: ``gap`` from the metadata of the scores, ``range`` from that of the sweep.

    Raises:
        StudyError: a file is missing, damaged, or comes from a method that finds no such range.
    """
    if selection == "gap":
        return _span_region(scores, LAYER_SCORES, selection)
    return _span_region(sweep, LAYER_SWEEP, selection)


def _span_region(path: str | Path, contract: Contract, selection: str) -> Region:
    open_table(path, contract)
    metadata = read_metadata(path)
    if selection not in metadata.get("found", {}):
        found = f"nothing found for selection '{selection}'"
        raise StudyError(
            explain(path, found, "a file written by SafeLayer", "another selection for this method")
        )
    inside = np.zeros(metadata["shapes"][LAYERS], bool)
    if metadata["found"][selection] is not None:
        span = Span(*metadata["found"][selection])
        inside[span.first : span.last + 1] = True
    rest = {key: value for key, value in metadata.items() if key not in NOT_METADATA}
    how = {"scope": "global", "fraction": float(inside.mean()), "selection": selection, "refinement": "raw"}
    return Region.pack({LAYERS: inside}, {**rest, **how})
