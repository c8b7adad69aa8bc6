"""Evidence: the attribution statistics of a pass over the samples, one tensor per address, and how to shuffle it."""

import zlib
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

Evidence = Mapping[str, Tensor]


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


def shuffle_evidence(evidence: Evidence, seed: int) -> Evidence:
    """Permute the evidence within each address (permutation null); weights and marginals do not change.

    Each address has its own permutation, a function of the seed and the address alone. The shuffled evidence of two
    datasets with two seeds is therefore independent, while any overlap due to the shared weights remains.
    """

    def permuted(address: str, values: Tensor) -> Tensor:
        return _permuted(address, values.flatten(), seed).view_as(values)

    return Changed(evidence, permuted)


def shuffle_units(evidence: Evidence, seed: int) -> Evidence:
    """Permute the units of evidence (..., units) within each address, in the same way along all leading axes.

    For evidence per prompt, (prompts, units), all values of a unit move together, so the agreement between prompts
    does not change. The permutations are those described in `shuffle_evidence`.
    """
    return Changed(evidence, lambda address, values: _permuted(address, values, seed))


def _permuted(address: str, values: Tensor, seed: int) -> Tensor:
    # The CPU generator uses only the low 32 bits of a seed, so seed and address are hashed to 32 bits.
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{address}".encode()))
    return values[..., torch.randperm(values.shape[-1], generator=generator).to(values.device)]
