"""Search for the range of layers whose scaling changes refusals most: upper bound, then lower bound.

The search is a pure function of a count of refusals, which may come from a backbone or from a published table. It
follows Li et al. 2024 (arXiv 2408.17003, section 3.4.3 and appendix A.3.4):

1. The factor alpha moves away from 1 in steps of ``beta`` until the standard deviation of the counts over a
   sweep of lower bounds (the initial one and ``window`` on either side) first reaches ``spread``.
2. With the initial lower bound fixed, the upper bound moves from its initial value until the count peaks.
3. With that upper bound fixed, the lower bound moves until the count peaks.

If alpha is above 1 the peak is a maximum, below 1 a minimum. Counts are not unimodal (Llama-3-8B: 272, 241, 283 for
upper bounds 10, 11, 12), so a peak is a bound that is at least as good as every bound within ``window`` of it. Bounds
are measured one by one, those nearest to the current best first, and the paper's direction first: upwards for the
upper bound, downwards for the lower bound. The result depends on this order and on the start; ``search: grid``
measures every range instead.
"""

from collections.abc import Callable
from statistics import pstdev
from typing import Literal, NamedTuple

from safety_regions.methods.safelayer.onset import Span

Count = Callable[[float, int, int], int]


class Plan(NamedTuple):
    """Settings of the search.

    Attributes:
        alpha: factor, or None to search for it.
        direction: amplify (alpha above 1) or attenuate (below 1), if alpha is searched for.
        beta: step size of alpha.
        most_steps: maximum number of steps of alpha; if none is enough, the alpha with the largest spread is used.
        spread: population standard deviation of the counts at which alpha is accepted, questions.
        window: a bound is a peak if no bound within this many layers is better.
        search: "walk" (upper, then lower bound) or "grid" (every range).
    """

    alpha: float | None
    direction: Literal["amplify", "attenuate"]
    beta: float
    most_steps: int
    spread: float
    window: int
    search: Literal["walk", "grid"]


class Measured(NamedTuple):
    """One count: refusals with layers ``first`` to ``last`` scaled by ``alpha``.

    ``bound`` names the step of the search that first needed it: spread, upper, lower or grid.
    """

    alpha: float
    bound: str
    first: int
    last: int
    refusals: int


class Found(NamedTuple):
    """The range found, and every count measured during the search, each range once.

    Attributes:
        span: 0-based, both ends included.
        alpha: factor used.
        refusals: count for the range.
        spread: standard deviation of the counts at the chosen alpha, questions; None if alpha was given.
        spread_reached: whether this reached the plan's spread; None if alpha was given.
        measured: in the order of measurement.
    """

    span: Span
    alpha: float
    refusals: int
    spread: float | None
    spread_reached: bool | None
    measured: tuple[Measured, ...]


class _Counts:
    """A count that measures each range once and records it."""

    def __init__(self, count: Count) -> None:
        self._count = count
        self.rows: dict[tuple[float, int, int], Measured] = {}

    def __call__(self, bound: str, alpha: float, span: Span) -> int:
        key = (alpha, *span)
        if key not in self.rows:
            self.rows[key] = Measured(alpha, bound, *span, self._count(*key))
        return self.rows[key].refusals


class _Alpha(NamedTuple):
    value: float
    spread: float | None = None
    reached: bool | None = None


def localise(count: Count, initial: Span, n_layers: int, plan: Plan) -> Found:
    """Find the range of layers whose scaling changes the count most.

    Args:
        count: (alpha, first layer, last layer) -> refusals; called once for each range.
        initial: where the search starts.
        n_layers: number of layers of the backbone.
        plan: see `Plan`.
    """
    counts = _Counts(count)
    alpha = _Alpha(plan.alpha) if plan.alpha else _search_alpha(counts, initial, plan)
    if plan.search == "grid":
        span = _grid(counts, alpha.value, n_layers)
    else:
        span = _walk(counts, alpha.value, initial, n_layers, plan.window)
    refusals = counts(plan.search, alpha.value, span)
    return Found(span, alpha.value, refusals, alpha.spread, alpha.reached, tuple(counts.rows.values()))


def _search_alpha(counts: _Counts, initial: Span, plan: Plan) -> _Alpha:
    sign = 1 if plan.direction == "amplify" else -1
    first, last = initial
    lower = [b for b in range(first - plan.window, first + plan.window + 1) if 0 <= b <= last]
    tried = []
    for step in range(1, plan.most_steps + 1):
        alpha = round(1 + sign * step * plan.beta, 9)
        if alpha <= 0:
            break
        spread = pstdev(counts("spread", alpha, Span(bound, last)) for bound in lower)
        tried.append(_Alpha(alpha, spread, spread >= plan.spread))
        if tried[-1].reached:
            return tried[-1]
    return max(tried, key=lambda alpha: alpha.spread)


def _walk(counts: _Counts, alpha: float, initial: Span, n_layers: int, window: int) -> Span:
    sign = 1 if alpha > 1 else -1
    upper = _peak(
        lambda bound: sign * counts("upper", alpha, Span(initial.first, bound)),
        initial.last,
        range(initial.first, n_layers),
        [*range(1, window + 1), *range(-1, -window - 1, -1)],
    )
    lower = _peak(
        lambda bound: sign * counts("lower", alpha, Span(bound, upper)),
        initial.first,
        range(upper + 1),
        [*range(-1, -window - 1, -1), *range(1, window + 1)],
    )
    return Span(lower, upper)


def _peak(value: Callable[[int], int], start: int, allowed: range, steps: list[int]) -> int:
    """A bound that no bound within ``steps`` of it beats; among ties, the one measured first (nearest first)."""
    values = {start: value(start)}
    while True:
        best = max(values, key=values.__getitem__)
        missing = [best + step for step in steps if best + step in allowed and best + step not in values]
        if not missing:
            return best
        values[missing[0]] = value(missing[0])


def _grid(counts: _Counts, alpha: float, n_layers: int) -> Span:
    """The best of all ranges; among ties the shortest, then the one with the lowest layers."""
    sign = 1 if alpha > 1 else -1
    spans = [Span(first, last) for first in range(n_layers) for last in range(first, n_layers)]
    spans.sort(key=lambda span: (span.last - span.first, span.first))
    return max(spans, key=lambda span: sign * counts("grid", alpha, span))
