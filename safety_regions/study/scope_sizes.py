"""How many units are ranked against each other, where that is known before a backbone is loaded.

The config is checked with it: a fraction that keeps no unit of a scope is an error before the run.
"""

from collections.abc import Iterable, Iterator
from math import prod
from typing import NamedTuple

from safety_regions.errors import explain
from safety_regions.study.method_shelf import granularity_of, method_cards
from safety_regions.study.methods import Method
from safety_regions.units.addresses import PROJECTIONS
from safety_regions.units.fractions import scope_count
from safety_regions.units.granularity import GLOBAL, LAYER, MATRIX, ROW, Granularity
from safety_regions.units.selections import parse_selection

RANK = "rank"


class BackboneSizes(NamedTuple):
    """Name of a backbone, its sizes (`checkpoints.unit_counts`), and the rank of its adapter, None if unknown."""

    name: str
    counts: dict
    rank: int | None


class Asked(NamedTuple):
    """A fraction that the config asks for: where it says so, and of which units.

    ``scope`` is a scope of the granularity, or `RANK` for a fraction of the adapter's rank.
    """

    place: str
    granularity: Granularity
    scope: str
    fraction: float
    hint: str = ""


def asked_fractions(label: str, method: Method, allow_empty: bool, compared: float | None) -> Iterator[Asked]:
    """The fractions of a method that must keep at least one unit.

    Args:
        label: of the method.
        method: as the config has it.
        allow_empty: whether its selections may keep none.
        compared: the fraction at which methods are compared, or None.
    """
    granularity, option = granularity_of(method.module), method_cards()[method.module]["rank_fraction"]
    if not allow_empty:
        subtracted = [method.minus.selection] if method.minus.selection else []
        for key, texts in (("selections", method.selections), ("minus: selection", subtracted)):
            for scope, fraction in filter(None, map(parse_selection, texts)):
                if scope in granularity.scopes:
                    hint = ", or `allow_empty: true`"
                    yield Asked(f"methods: {label}: {key}", granularity, scope, fraction, hint)
    if compared and not granularity.subspaces:
        yield Asked("compare_methods", granularity, granularity.compared_in, compared)
    if option:
        yield Asked(f"methods: {label}: options: {option}", granularity, RANK, method.options[option])


def empty_fractions(sizes: BackboneSizes, asked: Iterable[Asked], where: str) -> Iterator[str]:
    """A sentence for each fraction that keeps no unit of some scope; none where the sizes are not known."""
    for place, granularity, scope, fraction, hint in asked:
        if scope == RANK:
            n, units = sizes.rank, f"directions of the adapter of '{sizes.name}'"
        else:
            n = smallest_scope(sizes.counts, granularity, scope, sizes.rank)
            units = f"{granularity.plural} of a {scope} scope of '{sizes.name}'"
        if n and scope_count(fraction, n) == 0:
            found = f"{fraction} of {n} {units}, which is none"
            yield explain(
                f"{where}: {place}", found, "1 or more", f"a fraction of at least {1 / n:.3g}{hint}"
            )


def smallest_scope(counts: dict, granularity: Granularity, scope: str, rank: int | None) -> int | None:
    """Units of the smallest set that a scope ranks.

    Args:
        counts: sizes of the backbone; see `checkpoints.unit_counts`.
        granularity: of the units.
        scope: row, matrix, layer or global; one of the granularity's.
        rank: of the backbone's LoRA adapter; None where it is not known.

    Returns:
        Their number, or None where the sizes are not known.
    """
    if granularity.whole_layers:
        return counts.get("layers")
    part = (granularity.part,) if granularity.part else ()
    if any(name not in counts for name in part or PROJECTIONS) or (granularity.factors and rank is None):
        return None
    names = part or granularity.projections
    shapes = [shape for name in names for shape in _shapes(counts[name], name, granularity, rank)]
    if scope == ROW:
        return min(shape[-1] for shape in shapes)
    sizes = [prod(shape) for shape in shapes]
    per_layer = sum(sizes)
    known = {
        MATRIX: min(sizes),
        LAYER: per_layer,
        GLOBAL: per_layer * counts["layers"] if "layers" in counts else None,
    }
    return known[scope]


def _shapes(
    shape: tuple[int, ...], projection: str, granularity: Granularity, rank: int | None
) -> list[tuple[int, ...]]:
    """The shapes of a projection's units: of its weights (out, in), neurons, ranks or LoRA factors; of heads."""
    if granularity.part:
        return [shape]
    outputs, inputs = shape
    if granularity.factors:
        return [(rank, inputs), (outputs, rank)]
    if granularity.subspaces:
        return [(min(shape),)]
    if len(granularity.axes) == 1:
        return [(inputs if projection in granularity.columns else outputs,)]
    return [shape]
