"""What is known to differ between the regions of one cell in two studies, from the metadata of their files.

Another method, kind of unit, scope, kept fraction or shape makes the regions incomparable (`OTHER_UNITS`). Another
number of prompts moves every value but the disattenuated correlation (`SAME_NUMBER`). All else may explain a difference
(`MAY_EXPLAIN`, and which prompts were used) and forbids nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

SIDES = ("there", "here")
"""The other study, and this one."""

SAME_NUMBER = 1.1
"""Ratio of the numbers of prompts of a set up to which they count as the same."""

OTHER_UNITS = {
    "method": "method",
    "granularity": "units",
    "scope": "scope",
    "fraction": "kept fraction",
    "weight_shapes": "shape of the backbone",
}
"""Metadata of a region that make two regions incomparable, and their names."""

MAY_EXPLAIN = {
    "options": "options",
    "code": "code",
    "source": "checkpoint",
    "revision": "revision",
    "dtype": "dtype",
    "template": "template",
    "system_prompt": "system prompt",
    "prompt_frame_sha256": "text around a prompt",
    "temperature": "temperature",
    "response_tokens": "responses",
}
"""Metadata of a region that may explain a difference, and their names."""

LONG = ("code", "prompt_frame_sha256", "weight_shapes", "system_prompt")
"""Metadata whose values are not shown."""


class Differences(NamedTuple):
    """What is known to differ between the regions of a cell: what forbids a comparison, and what may explain it.

    Attributes:
        units: the regions are of other units, or were selected in another way.
        numbers: they were found with other numbers of prompts.
        others: everything else.
    """

    units: Sequence[str]
    numbers: Sequence[str]
    others: Sequence[str]


def differences(there: Mapping[str, Mapping], here: Mapping[str, Mapping]) -> Differences:
    """Compare how the regions of a cell were made in two studies.

    Args:
        there, here: set -> metadata of its region; empty if they are not known.
    """
    pairs = [(there[name], here[name]) for name in sorted(there.keys() & here.keys())]
    if not pairs:
        return Differences((), (), ("not known how the regions were made (no region files)",))
    units = [text for key, word in OTHER_UNITS.items() if (text := _differing(pairs, key, word))]
    others = [text for key, word in MAY_EXPLAIN.items() if (text := _differing(pairs, key, word))]
    others += [] if all("code" in one for pair in pairs for one in pair) else ["code (not known)"]
    return Differences(units, _other_numbers(pairs), [*_other_prompts(pairs), *others])


def _differing(pairs: Iterable[tuple[Mapping, Mapping]], key: str, word: str) -> str:
    """The name of what differs, with the values of the first set in which it does; empty if nothing does."""
    for pair in pairs:
        values = [_value(one, key) for one in pair]
        if all(key in one for one in pair) and values[0] != values[1]:
            return word if key in LONG else f"{word} ({_shown(values[0], values[1])})"
    return ""


def _value(metadata: Mapping, key: str) -> object:
    """A value of the metadata; of an organism's checkpoint, which lies in the results, only the organism's name."""
    value = metadata.get(key)
    return value.rpartition("/organisms/")[2] if key == "source" and isinstance(value, str) else value


def _shown(there: object, here: object) -> str:
    """Both values; of options, those that differ."""
    if not (isinstance(there, Mapping) and isinstance(here, Mapping)):
        return f"{there} there, {here} here"
    keys = [key for key in sorted({*there, *here}) if there.get(key) != here.get(key)]
    return ", ".join(f"{key} {there.get(key)} there, {here.get(key)} here" for key in keys)


def _other_numbers(pairs: Iterable[tuple[Mapping, Mapping]]) -> list[str]:
    numbers = [tuple(one.get("samples_used") for one in pair) for pair in pairs]
    numbers = [pair for pair in numbers if all(pair)]
    far = [pair for pair in numbers if max(pair) > SAME_NUMBER * min(pair)]
    said = (f"{_span([pair[i] for pair in numbers])} {side}" for i, side in enumerate(SIDES))
    return [f"number of prompts ({', '.join(said)})"] if far else []


def _span(numbers: Sequence[int]) -> str:
    few, many = min(numbers), max(numbers)
    return f"{few}" if few == many else f"{few}-{many}"


def _other_prompts(pairs: Iterable[tuple[Mapping, Mapping]]) -> list[str]:
    ids = [[set(one.get("prompts_used", ())) for one in pair] for pair in pairs]
    used = sum(len(here) for _, here in ids)
    new = sum(len(here - there) for there, here in ids)
    gone = sum(len(there - here) for there, here in ids)
    return [f"prompts ({new} of {used} only here, {gone} only there)"] if new or gone else []
