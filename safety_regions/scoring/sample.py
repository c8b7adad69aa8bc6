"""A fixed sample of the units of every address, whose scores are stored whether they are among the best or not.

A score table stores the best units only, which gives no correlation of the scores of two sets. The sample is the same
for every name, so that the scores of two names can be paired unit by unit (`safety_regions.overlap.correlation`).
"""

import zlib
from math import prod

import numpy as np
import torch
from torch import Tensor

UNITS = 4096
"""Sampled units of an address; all units if there are fewer. An 8B Llama has 224 addresses: 4 MB of scores a name."""

ROWS = 64
"""Rows of a matrix that the sample takes its units from, so that each row has enough of them to be centred."""


def sampled_units(address: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return the sampled units of an address: flat indices in C order, ascending, int64.

    The sample is a function of address and shape alone. From a matrix it takes `ROWS` random rows (more if rows are
    short) and as many random columns of each row, with other columns in every row. A vector counts as one row.
    """
    rng = np.random.default_rng(zlib.crc32(f"sample/{address}".encode()))
    n_rows, n_columns = prod(shape[:-1]), shape[-1]
    n_taken = min(n_rows, max(ROWS, UNITS // n_columns))
    rows = rng.choice(n_rows, n_taken, replace=False)
    in_row = min(n_columns, UNITS // n_taken)
    columns = rng.random((n_taken, n_columns), np.float32).argpartition(in_row - 1, axis=1)[:, :in_row]
    return np.sort((rows[:, None] * n_columns + columns).ravel())


def sample_mask(address: str, scores: Tensor) -> Tensor:
    """Return the sampled units of an address as a mask in the shape of ``scores``."""
    mask = torch.zeros_like(scores, dtype=torch.bool)
    units = torch.from_numpy(sampled_units(address, tuple(scores.shape)))
    mask.view(-1)[units.to(mask.device)] = True
    return mask
