"""Detect values that are not finite, and report the prompts that they belong to."""

import torch
from torch import Tensor

from safety_regions.errors import StudyError, explain
from safety_regions.model.batches import Batch


class Finite:
    """Records which samples of a batch have values that are not finite, and at which address first.

    `check` keeps two numbers per sample and does not synchronise the device; `raise_for` reads them once per batch.
    """

    def __init__(self) -> None:
        self._ends: list[tuple[str, Tensor]] = []

    def check(self, address: str, values: Tensor) -> None:
        """Note whether ``values`` (batch, ...) are finite for each sample."""
        self._ends.append((address, extremes(values.flatten(1))))

    def raise_for(self, batch: Batch) -> None:
        """Raise a `StudyError` with the first bad address and the prompt ids, if any; clear the record."""
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
    """Maximum and minimum of each row of ``values`` (rows, n), shape (2, rows); finite if and only if the row is.

    Both propagate NaN. This is ten times faster than testing every value.
    """
    return torch.stack((values.amax(dim=1), values.amin(dim=1)))
