"""Errors that a user can act on: where, what was found, what was expected, what to try.

Messages never contain a prompt, a response or a token: ids and counts are enough.
"""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class StudyError(Exception):
    """A mistake in the config, a card, a data file or a checkpoint that the user can fix."""


def explain(where: object, found: str, expected: str = "", hint: str = "") -> str:
    """One error line, e.g. ``config.yaml: methods: found 'wanad'; expected one of: snip, wanda. Try ...``."""
    parts = [f"{where}: found {found}"]
    if expected:
        parts.append(f"; expected {expected}")
    if hint:
        parts.append(f". Try: {hint}")
    return "".join(parts)


def unknown(where: object, kind: str, name: object, available: Iterable[str]) -> str:
    """One error line for a name that is not in ``available``; it suggests the closest match."""
    available = sorted(available)
    near = get_close_matches(str(name), available, n=1)
    guess = f" Did you mean '{near[0]}'?" if near else ""
    return f"{where}: unknown {kind} '{name}'.{guess} Available: {', '.join(available) or 'none'}"


def raise_all(title: str, problems: Sequence[str]) -> None:
    """Raise one `StudyError` that lists every problem; do nothing when there is none."""
    problems = list(dict.fromkeys(problems))
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise StudyError(f"{title}: {count}\n" + "\n".join(f"  - {problem}" for problem in problems))
