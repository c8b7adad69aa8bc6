"""Effects of regions: what changes when a region is changed, beside what changes with its controls.

An effect is a difference from the unmodified model, or from the base model for operations that start from it, paired by
prompt and averaged over prompts. Intervals are Student's t over prompts. A p-value needs draws of a control:

    p = (1 + number of draws whose effect is at least as large in absolute value) / (1 + number of draws)

If the region were one more draw of the control, p <= a would happen with probability at most a. 19 draws can reach
0.05, 99 draws 0.01.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import ndtri, stdtrit

from safety_regions.units.behaviour import DRAWN, NONE, OTHER, PART, REGION, UTILITY

LEVEL = 0.95
ALL = "all"
"""The name of the row that averages over the regions of all sets."""
ARM = ["operation", "dose", "control", "of", "draw"]


class Interval(NamedTuple):
    """A mean with its 95 % interval; the ends are NaN for fewer than two values."""

    mean: float
    low: float
    high: float


def t_interval(values: np.ndarray) -> Interval:
    """The mean of values with Student's t interval."""
    mean, n = float(np.mean(values)), len(values)
    if n < 2:
        return Interval(mean, np.nan, np.nan)
    half = float(stdtrit(n - 1, (1 + LEVEL) / 2) * np.std(values, ddof=1) / np.sqrt(n))
    return Interval(mean, mean - half, mean + half)


def wilson(k: int, n: int) -> Interval:
    """The rate k / n with Wilson's score interval."""
    z = float(ndtri((1 + LEVEL) / 2))
    rate, centre = k / n, (k + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * np.sqrt(k * (n - k) / n + z * z / 4)
    return Interval(rate, max(0.0, centre - half), min(1.0, centre + half))


def permutation_p(effect: float, drawn: Sequence[float]) -> float | None:
    """The p-value of an effect among those of a control's draws; None without draws."""
    if not len(drawn):
        return None
    return (1 + int(np.sum(np.abs(drawn) >= abs(effect)))) / (1 + len(drawn))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order of the p-values."""
    order, n, largest = np.argsort(p_values, kind="stable"), len(p_values), 0.0
    found = [0.0] * n
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (n - rank) * p_values[index]))
        found[index] = largest
    return found


def profiles(arms: pd.DataFrame, roles: Mapping[str, str]) -> dict[tuple, pd.Series]:
    """The values of every arm by prompt: (operation, dose, control, of, draw, measure, evaluated) -> values.

    ``evaluated`` is a dataset, or a role: all datasets of that role together. The series is indexed by prompt.

    Args:
        arms: rows of `contracts.ABLATED`.
        roles: dataset -> its role.
    """
    found = {}
    frame = arms.astype({"evaluated": str, "measure": str, "operation": str, "control": str, "of": str})
    pooled = frame.assign(evaluated=frame["evaluated"].map(roles))
    for part in (frame, pooled):
        for key, rows in part.groupby([*ARM, "measure", "evaluated"], sort=False):
            found[key] = rows.set_index("prompt_id")["value"].sort_index()
    return found


class Effects:
    """The effects of one region and of its controls.

    Args:
        arms: rows of `contracts.ABLATED`.
        roles: dataset -> harmful or ordinary.
        into_base: the operations that start from the base model.
    """

    def __init__(self, arms: pd.DataFrame, roles: Mapping[str, str], into_base: Iterable[str]) -> None:
        self._values, self._into_base = profiles(arms, roles), set(into_base)
        self._draws: dict[tuple, list[pd.Series]] = {}
        for (*arm, _, measure, evaluated), values in self._values.items():
            self._draws.setdefault((*arm, measure, evaluated), []).append(values)

    def reference(self, operation: str, measure: str, evaluated: str) -> pd.Series | None:
        """The values of the model that an operation starts from."""
        start = ("transplant", 0.0) if operation in self._into_base else ("scale", 1.0)
        return self._values.get((*start, NONE, "", 0, measure, evaluated))

    def tested(self) -> Iterator[tuple[str, float, str, str]]:
        """(operation, dose, measure, evaluated) of every measurement of the region."""
        for operation, dose, control, _, _, measure, evaluated in self._values:
            if control == REGION and self.reference(operation, measure, evaluated) is not None:
                yield operation, dose, measure, evaluated

    def of_prompts(self, operation: str, dose: float, measure: str, evaluated: str) -> pd.Series:
        """The region's effect on every prompt."""
        region = self._values[operation, dose, REGION, "", 0, measure, evaluated]
        return region - self.reference(operation, measure, evaluated).reindex(region.index)

    def of_control(
        self, control: str, of: str, operation: str, dose: float, measure: str, evaluated: str
    ) -> list[pd.Series]:
        """The effect of every draw of a control on every prompt."""
        before = self.reference(operation, measure, evaluated)
        drawn = self._draws.get((operation, dose, control, of, measure, evaluated), [])
        return [values - before.reindex(values.index) for values in drawn]

    def of_sets(
        self, control: str, operation: str, dose: float, measure: str, evaluated: str
    ) -> list[pd.Series]:
        """The mean effect of the regions of all sets of a kind (utility or other); empty if there are none."""
        sets = [of for kind, of in self.controls(operation, dose) if kind == control]
        effects = [
            e for of in sets for e in self.of_control(control, of, operation, dose, measure, evaluated)
        ]
        return [_mean(effects)] if effects else []

    def controls(self, operation: str, dose: float) -> list[tuple[str, str]]:
        """(control, set) of all controls of an operation and dose."""
        found = (key[2:4] for key in self._values if key[:2] == (operation, dose))
        return [key for key in dict.fromkeys(found) if key[0] not in (NONE, REGION)]


def compare(
    named: Mapping[str, Effects], operation: str, dose: float, measure: str, evaluated: str
) -> list[dict]:
    """Compare the effect of regions with each of their controls.

    Args:
        named: name -> the effects of its region. With several, effects are averaged over the regions before anything
            else, and draws are averaged by their number.

    Returns:
        One row per control that all regions have: the columns of `contracts.EFFECTS` from ``against`` to ``p``; the
        first row is without a control. Beside random parts of a region stands the effect of its core or private part.
    """
    place = (operation, dose, measure, evaluated)
    region = _mean([effects.of_prompts(*place) for effects in named.values()])
    before = _mean([e.reference(operation, measure, evaluated).reindex(region.index) for e in named.values()])
    rows = [{"against": NONE, "of": "", "draws": 0, **_effect(region, before)}]
    kinds = next(iter(named.values())).controls(operation, dose)
    if len(named) > 1:  # each region has other sets of its own, so their regions are averaged first
        kinds = list(dict.fromkeys((control, "") for control, _ in kinds))
    for control, of in kinds:
        drawn = [effects.of_control(control, of, *place) for effects in named.values()]
        if len(named) > 1 and control in (UTILITY, OTHER):
            drawn = [effects.of_sets(control, *place) for effects in named.values()]
        if not all(drawn):
            continue
        own = region
        if control.endswith(PART):  # as large as the core or private part of the region
            parts = [e.of_control(control.removesuffix(PART), of, *place) for e in named.values()]
            own = _mean([part for [part] in parts])
        draws = [_mean(same) for same in zip(*drawn, strict=False)]
        difference = t_interval((own - _mean(draws).reindex(own.index)).to_numpy())
        means = [float(draw.mean()) for draw in draws]
        random = control in DRAWN or control.endswith(PART)
        rows.append(
            {
                "against": control,
                "of": of,
                "draws": len(draws) if random else 0,
                **_effect(own, before),
                "control_effect": float(np.mean(means)),
                "control_low": float(np.min(means)),
                "control_high": float(np.max(means)),
                "difference": difference.mean,
                "difference_low": difference.low,
                "difference_high": difference.high,
                "p": permutation_p(float(own.mean()), means) if random else None,
            }
        )
    return rows


def _effect(own: pd.Series, before: pd.Series) -> dict[str, float]:
    """The columns of a row that describe an effect on every prompt."""
    found = t_interval(own.to_numpy())
    return {
        "n": len(own),
        "unmodified": float(before.mean()),
        "changed": float((own + before).mean()),
        "effect": found.mean,
        "effect_low": found.low,
        "effect_high": found.high,
    }


def _mean(series: Sequence[pd.Series]) -> pd.Series:
    """The mean of several series over the prompts that all of them have."""
    joined = pd.concat(series, axis=1, join="inner")
    return joined.mean(axis=1)


def effects_of_cell(named: Mapping[str, Effects]) -> list[dict]:
    """All comparisons of a cell: of each set's region, and, as `ALL`, of the mean over the regions of all sets.

    ``p_holm`` is adjusted over the rows of the single sets with the same operation, dose, measure, prompts and control.
    """
    rows = []
    places = list(dict.fromkeys(place for effects in named.values() for place in effects.tested()))
    for operation, dose, measure, evaluated in places:
        having = {
            name: effects
            for name, effects in named.items()
            if (operation, dose, measure, evaluated) in set(effects.tested())
        }
        label = {"operation": operation, "dose": dose, "measure": measure, "evaluated": evaluated}
        single = [
            {"name": name, **label, **row}
            for name, effects in having.items()
            for row in compare({name: effects}, operation, dose, measure, evaluated)
        ]
        _adjust(single)
        rows += single
        if len(named) > 1 and len(having) == len(named):
            joint = compare(having, operation, dose, measure, evaluated)
            rows += [{"name": ALL, **label, **row} for row in joint]
    return rows


def _adjust(rows: list[dict]) -> None:
    for control in dict.fromkeys((row["against"], row["of"]) for row in rows):
        same = [row for row in rows if (row["against"], row["of"]) == control and row.get("p") is not None]
        for row, p in zip(same, holm([row["p"] for row in same]), strict=True):
            row["p_holm"] = p
