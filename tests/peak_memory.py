"""Measure the memory of a call's tensors: count each storage once, from its creation to its release."""

import weakref
from collections.abc import Callable

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def peak_bytes(call: Callable[[], object]) -> int:
    """Return the most bytes that tensors created by a call occupy at once; tensors that existed before do not count."""
    with _Tensors() as made:
        call()
    return made.peak


class _Tensors(TorchDispatchMode):
    """Counts the bytes of storages from creation to release; ``peak`` is the most at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.alive, self.peak = 0, 0
        self._known = weakref.WeakSet()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self._known.update(_storages((args, kwargs)))
        made = func(*args, **(kwargs or {}))
        for storage in _storages(made):
            if storage not in self._known:
                self._known.add(storage)
                self._count(storage.nbytes())
                weakref.finalize(storage, self._count, -storage.nbytes())
        return made

    def _count(self, n: int) -> None:
        self.alive += n
        self.peak = max(self.peak, self.alive)


def _storages(tree: object) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]
