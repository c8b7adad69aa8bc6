"""Choose the scores to store: the top fraction of every scope in ``kept``, and nothing else.

Dense scores are never written (7e9 rows for an 8B backbone). A unit is stored if it is among the top
int(fraction * n) of its row, its matrix, its layer or the whole model. Ties are broken by flat index, exactly as in
`safety_regions.regions.select`.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import reduce

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from safety_regions.errors import StudyError, explain
from safety_regions.formats.columns import category, column
from safety_regions.formats.contracts import score_contract
from safety_regions.model.finite import extremes
from safety_regions.units.addresses import parse_address
from safety_regions.units.fractions import scope_count
from safety_regions.units.granularity import Granularity

Scored = Callable[[], Iterator[tuple[str, Tensor]]]


def top_of_rows(scores: Tensor, k: int) -> Tensor:
    """Mask of the top k of each row of ``scores`` (rows, n), by score descending, then index ascending."""
    if k == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    threshold = _kth_largest(scores, k)
    best = scores >= threshold
    if int(np.count_nonzero(best.cpu().numpy())) == k * len(scores):  # no ties at the threshold
        return best
    above, equal = scores > threshold, scores == threshold
    return above | (equal & (equal.cumsum(1) <= k - above.sum(1, keepdim=True)))


def _kth_largest(scores: Tensor, k: int) -> Tensor:
    """The k-th largest of each row of ``scores`` (rows, n), as (rows, 1)."""
    if scores.is_cpu and scores.dtype == torch.float32:  # many times faster than torch.topk on the CPU
        last = scores.shape[1] - k
        return torch.from_numpy(np.partition(scores.numpy(), last, axis=1)[:, last : last + 1])
    return scores.topk(k, dim=1, sorted=False).values.amin(1, keepdim=True)


def keep_top(scored: Scored, kept: dict[str, float]) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield (address, scores, mask of the stored units) for every address.

    Args:
        scored: starts a new pass over (address, scores); called twice more for each scope wider than a matrix.
        kept: scope -> stored fraction (0-1].

    Raises:
        StudyError: a score is not finite; the message names the address.
    """
    if 1.0 in kept.values():
        kept = {"matrix": 1.0}  # if one scope stores all units, the others add nothing
    takers = [_Wide(scored, scope, kept[scope]) for scope in ("layer", "global") if scope in kept]
    for address, scores in scored():
        if not _finite(scores):
            raise StudyError(
                explain(
                    f"scores of {address}",
                    "values that are not finite",
                    "finite scores",
                    "a checkpoint whose weights are finite, or `dtype: float32`",
                )
            )
        masks = [taker.take(address, scores) for taker in takers]
        for scope, width in (("row", scores.shape[-1]), ("matrix", scores.numel())):
            if scope in kept:
                best = top_of_rows(scores.reshape(-1, width), scope_count(kept[scope], width))
                masks.append(best.view_as(scores))
        yield address, scores, reduce(torch.logical_or, masks)


def _finite(scores: Tensor) -> bool:
    """Whether all scores are finite: their sum is, unless it overflows, and takes half as long as both extremes."""
    return bool(torch.isfinite(scores.sum())) or bool(torch.isfinite(extremes(scores.reshape(1, -1))).all())


class _Wide:
    """The exact threshold of a scope wider than one matrix, from two histograms over the bits of the scores.

    Non-negative floats sort like their bit patterns (negative ones are flipped first). A histogram of the upper 16
    bits finds the bucket of the k-th largest score; a histogram of the lower 16 bits in that bucket finds its value.
    Memory is two histograms of 65,536 counts for each group, never the scores.
    """

    def __init__(self, scored: Scored, scope: str, fraction: float) -> None:
        self.scope = scope
        sizes: dict[object, int] = {}
        upper: dict[object, Tensor] = {}
        for address, scores in scored():
            group = self._group(address)
            sizes[group] = sizes.get(group, 0) + scores.numel()
            upper[group] = upper.get(group, 0) + _histogram(_order(scores) >> 16)
        count = {group: scope_count(fraction, n) for group, n in sizes.items()}
        bucket, rest = {}, {}
        for group, histogram in upper.items():
            bucket[group], rest[group] = _kth_from_top(histogram, count[group])
        lower: dict[object, Tensor] = {}
        for address, scores in scored():
            group = self._group(address)
            order = _order(scores)
            inside = order[(order >> 16) == bucket[group]] & 0xFFFF
            lower[group] = lower.get(group, 0) + _histogram(inside)
        self._threshold, self._ties = {}, {}
        for group, histogram in lower.items():
            low, ties = _kth_from_top(histogram, rest[group])
            self._threshold[group], self._ties[group] = (bucket[group] << 16) | low, ties

    def _group(self, address: str) -> object:
        return parse_address(address)[0] if self.scope == "layer" else None

    def take(self, address: str, scores: Tensor) -> Tensor:
        """Mask of the address's scores in the scope's top k. Addresses come in flat order, so earlier ties win."""
        group = self._group(address)
        order = _order(scores)
        equal = order == self._threshold[group]
        first = equal & (equal.flatten().cumsum(0).view_as(equal) <= self._ties[group])
        self._ties[group] -= int(first.sum())
        return (order > self._threshold[group]) | first


def _order(scores: Tensor) -> Tensor:
    """Map float32 to int64 in 0..2^32-1 with the same order (-0.0 counts as 0.0)."""
    bits = (scores.float() + 0.0).view(torch.int32).long()
    return torch.where(bits < 0, -1 - (bits & 0x7FFFFFFF), bits) + 2**31


def _histogram(values: Tensor) -> Tensor:
    return torch.bincount(values.flatten(), minlength=1 << 16).cpu()


def _kth_from_top(histogram: Tensor, k: int) -> tuple[int, int]:
    """The bucket of the k-th largest value, and how many values of that bucket belong to the top k."""
    if k == 0:
        return 1 << 16, 0
    from_top = histogram.flip(0).cumsum(0)
    position = int((from_top >= k).nonzero()[0])
    above = int(from_top[position - 1]) if position else 0
    return histogram.numel() - 1 - position, k - above


def as_table(
    granularity: Granularity,
    address: str,
    scores: Tensor,
    mask: Tensor,
    details: Mapping[str, Tensor] | None = None,
) -> pa.Table:
    """The stored units of one address as rows of the score table.

    Args:
        granularity: of the units; its ``axes`` are columns.
        scores, mask: scores of all units of the address, and which of them to store.
        details: additional columns: (units, prompts) becomes a list per unit; (units,) a number, null for NaN.
    """
    layer, projection = parse_address(address)
    flat, schema = np.flatnonzero(mask.cpu().numpy()), score_contract(granularity.name).schema
    where = np.unravel_index(flat, mask.shape)  # several times faster than np.nonzero of a matrix
    n, columns = len(flat), {}
    if not granularity.whole_layers:
        columns["layer"] = column(np.full(n, layer, np.int16))
        columns["projection"] = category(np.zeros(n), [projection])
    for axis, name in enumerate(granularity.axes):
        columns[name] = column(where[axis].astype(schema.field(name).type.to_pandas_dtype()))
    columns["score"] = column(scores.float().cpu().numpy().ravel()[flat])
    columns |= {
        name: _detail(values[mask.to(values.device)].cpu()) for name, values in (details or {}).items()
    }
    return pa.table(columns)


def _detail(values: Tensor) -> pa.Array:
    """A column of numbers from ``values`` (rows,), null for NaN, or a column of lists from (rows, n)."""
    if values.ndim == 1:
        return column(values.numpy(), missing=np.isnan(values.numpy()))
    rows, n = values.shape
    ends = np.arange(rows + 1, dtype=np.int32) * np.int32(n)
    return pa.ListArray.from_arrays(column(ends), column(values.flatten().numpy()))
