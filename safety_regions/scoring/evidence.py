"""Evidence: the attribution statistics of a pass over the samples, one tensor per address, and how to shuffle it."""

import zlib
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

Evidence = Mapping[str, Tensor]
ROWS = 256
"""Rows that are permuted at a time, so that their orders, 8 bytes each, take little memory."""


class Changed(Mapping):
    """Evidence whose tensors are changed when they are read, so that no second copy of all of it is in memory."""

    def __init__(self, evidence: Evidence, change: Callable[[str, Tensor], Tensor]) -> None:
        self._evidence, self._change = evidence, change

    def __getitem__(self, address: str) -> Tensor:
        return self._change(address, self._evidence[address])

    def __iter__(self) -> Iterator[str]:
        return iter(self._evidence)

    def __len__(self) -> int:
        return len(self._evidence)


def merge_means(evidence: Evidence, more: Evidence, n: float, m: float) -> Evidence:
    """The weighted mean of two evidences of equal shapes, computed address by address when it is read.

    Args:
        evidence, more: address -> means over the samples of two groups.
        n, m: their weights, such as the numbers of samples.
    """
    return Changed(evidence, lambda address, values: (n * values + m * more[address]) / (n + m))


def shuffle_evidence(evidence: Evidence, seed: int, kind: str = "") -> Evidence:
    """Permute the evidence (permutation null); weights, and the evidence's distribution where it moves, do not change.

    Each address has its own permutation, a function of the seed and the address alone. The shuffled evidence of two
    datasets with two seeds is therefore independent, while any overlap due to the shared weights remains.

    A null is exchangeable only if evidence moves among the units that are ranked together. Where units are ranked
    within rows, a permutation over the whole matrix would spread the differences between rows within every row.

    Args:
        evidence: address -> one value per weight (out, in), or one per input channel (in,).
        seed: of the permutations.
        kind: one of `names.SHUFFLES`: "" permutes within each matrix; "r" within each row; "m" within each matrix
            what the row and column sums of the absolute values do not explain, so that they stay as they are on
            average; signs move along. Values per channel are permuted in all three the same way for every row, but "m"
            leaves them where they are: they are column sums.
    """

    def permuted(address: str, values: Tensor) -> Tensor:
        if values.ndim == 1:
            return values if kind == "m" else _permuted(address, values, seed)
        if kind == "r":
            return _permuted_rows(address, values, seed)
        if kind == "m":
            return _permuted_residuals(address, values, seed)
        return _permuted(address, values.flatten(), seed).view_as(values)

    return Changed(evidence, permuted)


def _permuted_rows(address: str, values: Tensor, seed: int) -> Tensor:
    """Every row in a random order of its own."""
    generator, moved = _generator(address, seed), torch.empty_like(values)
    for rows, into in zip(values.split(ROWS), moved.split(ROWS), strict=True):
        order = torch.rand(rows.shape, generator=generator).argsort(dim=-1)
        into.copy_(rows.gather(-1, order.to(values.device)))
    return moved


def _permuted_residuals(address: str, values: Tensor, seed: int) -> Tensor:
    """The product of row and column sums of |values| over the total, times the permuted ratios of the values to it."""
    rows, columns = (values.abs().sum(axis, keepdim=True, dtype=torch.float64) for axis in (1, 0))
    scaled = (columns / rows.sum().clamp(min=torch.finfo(torch.float64).tiny)).to(values.dtype)
    explained = rows.to(values.dtype) * scaled
    ratios = torch.where(explained > 0, values / explained, 0)
    return _permuted(address, ratios.flatten(), seed).view_as(ratios).mul_(explained)


def shuffle_units(evidence: Evidence, seed: int) -> Evidence:
    """Permute the units of evidence (..., units) within each address, in the same way along all leading axes.

    For evidence per prompt, (prompts, units), all values of a unit move together, so the agreement between prompts
    does not change. The permutations are those described in `shuffle_evidence`.
    """
    return Changed(evidence, lambda address, values: _permuted(address, values, seed))


def rotation(key: str, n: int) -> Tensor:
    """A uniformly distributed random orthogonal matrix (n, n), float64, on the CPU; a function of the key and n."""
    generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))
    q, r = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))
    return q * r.diagonal().sign()


def _permuted(address: str, values: Tensor, seed: int) -> Tensor:
    order = torch.randperm(values.shape[-1], generator=_generator(address, seed))
    return values[..., order.to(values.device)]


def _generator(address: str, seed: int) -> torch.Generator:
    # The CPU generator uses only the low 32 bits of a seed, so seed and address are hashed to 32 bits.
    return torch.Generator().manual_seed(zlib.crc32(f"{seed}/{address}".encode()))
