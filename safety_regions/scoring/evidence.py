"""What a pass over the samples gathers: a tensor per address, finite or refused, and shuffled for a floor."""

import zlib
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

Evidence = Mapping[str, Tensor]


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
