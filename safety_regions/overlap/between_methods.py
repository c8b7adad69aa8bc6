"""Agreement of methods: their regions on the same backbone and dataset, at equal size, as weights.

Each method's best fraction is taken at its own granularity (weights and neurons within each projection, layers
within the model) and expanded to weights, so that all regions have about the same number of weights; the
overlap table has the exact counts. Projections that a method does not score (gate and o for neurons) contain
none of its weights.
"""

from pathlib import Path

from safety_regions.formats.expand import Factors, expand_region
from safety_regions.formats.region import Region
from safety_regions.formats.score_file import ScoreFile
from safety_regions.regions.select import select_region


def weights_of(scores_path: str | Path, fraction: float, factors: Factors | None = None) -> Region:
    """Return a method's best ``fraction`` (0-1) as a region of weights.

    Args:
        scores_path: the method's score table, with at least this fraction of the scope ``compared_in`` stored.
        factors: address -> its LoRA factors, for a method that scores an adapter.

    Raises:
        StudyError: the table is damaged or stores less, or the fraction is less than one layer.
    """
    file = ScoreFile(scores_path)
    region = select_region(scores_path, file.granularity.compared_in, fraction)
    shapes = {where: tuple(shape) for where, shape in file.metadata["weight_shapes"].items()}
    return expand_region(region, shapes, factors)
