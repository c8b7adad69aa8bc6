"""Where the gap between harmful and ordinary prompts opens, and where it stops growing, by a stated rule.

Li et al. 2024 (arXiv 2408.17003, section 3.4) read this range from the plotted curve by eye: from the layer
where the gap appears to where the curve first becomes smooth. The rule here:

1. The rise of layer l is gap_l - gap_(l-1), degrees.
2. Each rise is replaced by the median of ``smoothing`` layers (3) around it, so a jump in a single layer, such as
   the last with its final norm, neither counts as growth nor sets the scale. In a shallow model the window is at
   most a quarter of the layers: below 12 layers rises stay as they are.
3. A layer grows when its smoothed rise is at least ``growth`` (0.5) of the largest one. Of the unbroken runs of
   such layers the first one counts after which the gap is above 0: its first layer is the onset, its last layer
   reaches the plateau. There is none where harmful prompts never stand further off than ordinary ones do.
"""

from collections.abc import Sequence
from itertools import accumulate, groupby
from statistics import median_low
from typing import NamedTuple

ROUNDING = 1e-6  # degrees: less is no rise and no gap


class Span(NamedTuple):
    """Layers ``first`` to ``last``, 0-based, both included."""

    first: int
    last: int


class Growth(NamedTuple):
    """What the rule found; `span` is None where no gap opens.

    Attributes:
        span: onset and plateau.
        largest: the largest smoothed rise, degrees a layer.
        threshold: the rise from which a layer counts as growing, degrees a layer.
    """

    span: Span | None
    largest: float
    threshold: float


def find_growth(rises: Sequence[float], *, fraction: float, smoothing: int) -> Growth:
    """Onset and plateau of the gap by the rule above.

    Args:
        rises: what each layer adds to the gap, degrees.
        fraction: (0-1] of the largest rise from which a layer counts as growing.
        smoothing: layers whose median is taken, odd.
    """
    n = len(rises)
    half = max(min(smoothing, n // 4) - 1, 0) // 2
    # The lower median where the window is cut by an end, so that a jump of the first or last layer counts for nothing.
    smooth = [median_low(rises[max(0, layer - half) : layer + half + 1]) for layer in range(n)]
    largest = max(smooth)
    threshold = fraction * largest
    gap = list(accumulate(rises))
    runs = [
        list(run) for grows, run in groupby(range(n), key=lambda layer: smooth[layer] >= threshold) if grows
    ]
    opened = [Span(run[0], run[-1]) for run in runs if gap[run[-1]] > ROUNDING]
    return Growth(opened[0] if opened and largest > ROUNDING else None, largest, threshold)
