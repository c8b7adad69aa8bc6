"""Tests measure here how much the class of a response tells about the dataset of its prompt."""

from collections.abc import Sequence

import numpy as np


def mutual_information(labels: Sequence[str], classes: Sequence) -> float:
    """Return the plug-in estimate of the mutual information of two discrete variables, in bits."""
    place = [np.unique(np.asarray(values), return_inverse=True)[1] for values in (labels, classes)]
    table = np.zeros([values.max() + 1 for values in place])
    np.add.at(table, tuple(place), 1)
    joint = table / table.sum()
    apart = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    some = joint > 0
    return float((joint[some] * np.log2(joint[some] / apart[some])).sum())


def permuted_information(labels: Sequence[str], classes: Sequence, draws: int = 200) -> np.ndarray:
    """Return the same for labels that are permuted at random: what independent variables give at this size."""
    rng = np.random.default_rng(0)
    return np.array([mutual_information(rng.permutation(labels), classes) for _ in range(draws)])
