"""Where the gap between harmful and ordinary prompts opens, and where it stops growing, by an explicit rule.

Li et al. 2024 (arXiv 2408.17003, section 3.4) read this range off the plotted curve by eye: from the layer
where the gap appears to where the curve first becomes smooth. The rule here:

1. The rise of layer l is gap_l - gap_(l-1), degrees.
2. Each rise is replaced by the median over ``smoothing`` layers (3) around it. A jump in a single layer, such as
   the last layer with its final norm, then neither counts as growth nor sets the scale. The window is at most a
   quarter of the layers, so models with fewer than 12 layers are not smoothed.
3. A layer grows if its smoothed rise is at least ``growth`` (0.5) times the largest one. Take the first unbroken
   run of growing layers after which the gap is above 0: its first layer is the onset, its last layer reaches the
   plateau. There is no such run if harmful prompts are never further from ordinary prompts than those are from
   each other.
"""

from collections.abc import Sequence
from itertools import accumulate, groupby
from statistics import median_low
from typing import NamedTuple

ROUNDING = 1e-6  # degrees: smaller values count as no rise and no gap


class Span(NamedTuple):
    """Layers ``first`` to ``last``, 0-based, both included."""

    first: int
    last: int


class Growth(NamedTuple):
    """The result of the rule; `span` is None if no gap opens.

    Attributes:
        span: onset and plateau.
        largest: the largest smoothed rise, degrees per layer.
        threshold: the smallest rise that counts as growth, degrees per layer.
    """

    span: Span | None
    largest: float
    threshold: float


def find_growth(rises: Sequence[float], *, fraction: float, smoothing: int) -> Growth:
    """Onset and plateau of the gap by the rule above.

    Args:
        rises: change of the gap in each layer, degrees.
        fraction: (0-1] of the largest rise; a layer with at least this rise counts as growing.
        smoothing: number of layers in the median filter, odd.
    """
    n = len(rises)
    half = max(min(smoothing, n // 4) - 1, 0) // 2
    # At both ends the window is cut short; the lower median then ignores a jump in the first or last layer.
    smooth = [median_low(rises[max(0, layer - half) : layer + half + 1]) for layer in range(n)]
    largest = max(smooth)
    threshold = fraction * largest
    gap = list(accumulate(rises))
    runs = [
        list(run) for grows, run in groupby(range(n), key=lambda layer: smooth[layer] >= threshold) if grows
    ]
    opened = [Span(run[0], run[-1]) for run in runs if gap[run[-1]] > ROUNDING]
    return Growth(opened[0] if opened and largest > ROUNDING else None, largest, threshold)
