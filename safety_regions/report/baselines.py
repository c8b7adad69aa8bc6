"""Which data-free methods a method is compared with, where it is asked whether it finds a planted region.

The size of the weight change finds every plant, because it knows the weights before alignment. It is a baseline of
methods that know them too, and of no others.
"""

from collections.abc import Collection

import pandas as pd


def fair_baselines(method: str, data_free: Collection[str], base_reading: Collection[str]) -> list[str]:
    """The data-free methods that read no more than a method does.

    Args:
        method: label of the method.
        data_free: labels of the methods whose scores depend on no prompt.
        base_reading: labels of the methods that read the weights before alignment.
    """
    return [label for label in data_free if method in base_reading or label not in base_reading]


def best_baselines(methods: pd.DataFrame, values: pd.Series) -> pd.Series:
    """Method -> that of its `fair_baselines` with the largest value; null where none has a value.

    Args:
        methods: indexed by method: ``data_free``, ``reads_base``.
        values: indexed in the same way.
    """
    data_free, base_reading = (
        methods.index[methods[key].astype(bool)] for key in ("data_free", "reads_base")
    )
    found = {}
    for method in methods.index:
        known = values[fair_baselines(method, data_free, base_reading)].dropna()
        found[method] = known.idxmax() if len(known) else None
    return pd.Series(found, dtype=object)
