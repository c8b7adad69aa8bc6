"""Define the data-free methods literally: |W| in float64, and statistics that random draws must satisfy."""

import math

import torch

from safety_regions.model.backbone import Backbone
from safety_regions.units.addresses import PROJECTIONS
from tests.oracles.weights import split


def magnitude(backbone: Backbone) -> dict[str, torch.Tensor]:
    """Return |W|, entry by entry, in float64."""
    weights = {name.removesuffix(".weight"): w.double() for name, w in backbone.model.named_parameters()}
    layers = range(backbone.model.config.num_hidden_layers)
    found = {f"layers.{i}.{p}": split(backbone.model, i, p, weights) for i in layers for p in PROJECTIONS}
    return {
        where: torch.tensor([[abs(entry) for entry in row] for row in w.tolist()], dtype=torch.float64)
        for where, w in found.items()
    }


def distance_from_uniform(values: list[float]) -> float:
    """Return the Kolmogorov-Smirnov distance of values from uniform(0, 1), times the square root of their number.

    For uniform values it exceeds 2.7 with a probability of one in a million.
    """
    ordered, n = sorted(values), len(values)
    return math.sqrt(n) * max(
        max(abs(i / n - value), abs((i + 1) / n - value)) for i, value in enumerate(ordered)
    )


def correlation(first: list[float], second: list[float]) -> float:
    """Return Pearson's correlation times the square root of the number of pairs; independent values give N(0, 1)."""
    n = len(first)
    means = sum(first) / n, sum(second) / n
    centred = [(a - means[0], b - means[1]) for a, b in zip(first, second, strict=True)]
    sums = sum(a * b for a, b in centred), sum(a * a for a, _ in centred), sum(b * b for _, b in centred)
    return math.sqrt(n) * sums[0] / math.sqrt(sums[1] * sums[2])


def best_of_rows(rows: list[list[float]], k: int) -> set[tuple[int, int]]:
    """Return (row, column) of the k largest entries of each row."""
    return {(i, j) for i, row in enumerate(rows) for j in sorted(range(len(row)), key=lambda j: -row[j])[:k]}


def chance_overlap(rows: int, columns: int, k: int) -> tuple[float, float]:
    """Return mean and standard deviation of the shared entries of two random draws of k per row (hypergeometric)."""
    mean = k * k / columns
    variance = mean * ((columns - k) / columns) ** 2 * columns / (columns - 1)
    return rows * mean, math.sqrt(rows * variance)
