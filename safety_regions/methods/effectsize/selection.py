"""Selection by a threshold: the neurons whose score is above a number, wherever they are.

The number of neurons is a result, not a setting: it differs between sets and layers, and may be 0.
"""

from pathlib import Path

import numpy as np

from safety_regions.formats.region import Region
from safety_regions.formats.score_file import ScoreFile


def select(scores: str | Path, selection: str, sweep: str | Path | None, allow_empty: bool) -> Region:
    """The neurons whose score is above the number in ``score-1``, as a raw region.

    In its metadata the scope is matrix, because chance assumes regions with these sizes in each matrix; ``fraction`` is
    the fraction of neurons that was selected, ``threshold`` the number.

    Raises:
        StudyError: the table is damaged, or does not store every neuron.
    """
    file, threshold = ScoreFile(scores), float(selection.removeprefix("score-"))
    flags = {}
    for where, shape in file.shapes.items():
        flags[where] = np.zeros(shape, bool)
        flags[where][file.all_units(where)] = file.scores(where) > threshold
    selected = sum(int(flag.sum()) for flag in flags.values()) / sum(flag.size for flag in flags.values())
    how = {"scope": "matrix", "fraction": selected, "selection": selection, "threshold": threshold}
    return Region.pack(flags, {**file.metadata, **how, "refinement": "raw"})
