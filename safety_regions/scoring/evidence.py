"""What a pass over the samples gathers: a tensor per address, finite or refused, and shuffled for a floor."""

import zlib
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from safety_regions.errors import StudyError, explain
from safety_regions.scoring.samples import Batch

Evidence = Mapping[str, Tensor]


class Finite:
    """Collects, per batch, which samples met a value that is not finite, and where first.

    `check` keeps two numbers per sample and synchronises nothing; `raise_for` reads them once a batch.
    """

    def __init__(self) -> None:
        self._ends: list[tuple[str, Tensor]] = []

    def check(self, address: str, values: Tensor) -> None:
        """Note whether ``values`` (batch, ...) are finite for each sample."""
        self._ends.append((address, extremes(values.flatten(1))))

    def raise_for(self, batch: Batch) -> None:
        """Raise a `StudyError` naming the first address and the prompt ids, and forget what was noted."""
        noted, self._ends = self._ends, []
        for address, ends in noted:
            good = torch.isfinite(ends).all(dim=0)
            if not bool(good.all()):
                ids = [i for i, fine in zip(batch.prompt_ids, good.tolist(), strict=True) if not fine]
                raise StudyError(
                    explain(
                        f"scoring: {address}",
                        f"values that are not finite for {', '.join(ids[:5])}",
                        "finite numbers",
                        "`dtype: float32` or bfloat16 in the backbone's card",
                    )
                )


def extremes(values: Tensor) -> Tensor:
    """The largest and the smallest of each row (rows, n): (2, rows). Both are finite where all of the row is.

    A NaN is passed on by both. Ten times faster than to ask every value whether it is finite.
    """
    return torch.stack((values.amax(dim=1), values.amin(dim=1)))


class Changed(Mapping):
    """Evidence of which each tensor is changed when it is read, so that no second copy of the whole stands by."""

    def __init__(self, evidence: Evidence, change: Callable[[str, Tensor], Tensor]) -> None:
        self._evidence, self._change = evidence, change

    def __getitem__(self, address: str) -> Tensor:
        return self._change(address, self._evidence[address])

    def __iter__(self) -> Iterator[str]:
        return iter(self._evidence)

    def __len__(self) -> int:
        return len(self._evidence)


def shuffle_evidence(evidence: Evidence, seed: int) -> Evidence:
    """Evidence permuted within each address by a seeded permutation; weights, and marginals, stay.

    Each address has its own permutation, a function of the seed and the address alone, so that the shuffled
    evidence of two datasets by two seeds is independent while what the weights share remains.
    """

    def permuted(address: str, values: Tensor) -> Tensor:
        return _permuted(address, values.flatten(), seed).view_as(values)

    return Changed(evidence, permuted)


def shuffle_units(evidence: Evidence, seed: int) -> Evidence:
    """Evidence (..., units) whose units change places within each address, alike for all that stands before them.

    For evidence per prompt, (prompts, units): a unit keeps all it had, so units stay as alike across prompts as
    they were. The permutations are those described at `shuffle_evidence`.
    """
    return Changed(evidence, lambda address, values: _permuted(address, values, seed))


def _permuted(address: str, values: Tensor, seed: int) -> Tensor:
    # The CPU generator reads only the low 32 bits of a seed, so seed and address are mixed into 32.
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{address}".encode()))
    return values[..., torch.randperm(values.shape[-1], generator=generator).to(values.device)]
