"""Retry with half the batch size after an out-of-memory error."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from safety_regions.errors import StudyError, explain

REMEDY = (
    "more memory (`set-resources: score: mem_mb=...`), more or larger GPUs, `dtype: bfloat16` in the backbone's "
    "card, or shorter samples (a smaller `max_new_tokens`, a filter in the dataset's card)"
)
Item, Result = TypeVar("Item"), TypeVar("Result")


class OutOfMemory(StudyError):
    """A pass ran out of memory even with one sample at a time."""


def ran_out(error: BaseException) -> bool:
    """Whether an error means that a device or the host ran out of memory."""
    from accelerate.utils.memory import should_reduce_batch_size  # takes 0.1 s, and most jobs have no error

    return isinstance(error, MemoryError) or should_reduce_batch_size(error)


def halving(size: int, attempt: Callable[[int], Result]) -> tuple[Result, int]:
    """Call ``attempt(size)``; after an out-of-memory error, call it again with half the size.

    Returns:
        What ``attempt`` returned, and the size that it succeeded with.

    Raises:
        OutOfMemory: a size of 1 still runs out of memory.
    """
    while True:
        try:
            return attempt(size), size
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
        # Outside the handler: inside, the exception would keep the tensors of the failed attempt alive.
        size = _halved(size)


def in_batches(
    items: Sequence[Item], size: int, run: Callable[[Sequence[Item]], Result]
) -> Iterator[tuple[Sequence[Item], Result]]:
    """Yield groups of up to ``size`` items with ``run(group)``; halve the size after an out-of-memory error.

    Raises:
        OutOfMemory: a single item still runs out of memory.
    """
    start = 0
    while start < len(items):
        result, size = halving(size, lambda n, at=start: (items[at : at + n], run(items[at : at + n])))
        yield result
        start += size


def _halved(size: int) -> int:
    if size == 1:
        raise OutOfMemory(
            explain("a pass through the backbone", "not enough memory for a single sample", hint=REMEDY)
        )
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    print(f"out of memory with batches of {size}: retrying with {size // 2}")
    return size // 2
