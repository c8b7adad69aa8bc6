"""Selection by agreement: the neurons that matter for every prompt, or for a fraction of the prompts.

Within each module (projection of a layer), a neuron is in a ``common`` region if it is among the top int(fraction * n)
of n neurons for enough prompts, and in an ``above`` region if its importance reaches a threshold for enough prompts.
The number of neurons is a result, not a setting: it differs from module to module, and may be 0.

Zhao et al. 2025 intersect over all prompts. The fraction named ``plnd`` is that of their released code
(DAMO-NLP-SG/multilingual_analysis @be2b161, README): the top 1000 of 4096 in attention, 2000 of 14336 in the
feed-forward part.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from safety_regions.errors import StudyError, explain, unknown
from safety_regions.formats.region import Region
from safety_regions.formats.score_file import ScoreFile
from safety_regions.units.addresses import parse_address
from safety_regions.units.fractions import needed_prompts, scope_count

# Rule -> the column of the score table that it compares, with one value for each prompt.
RULES = {"common": "ranks", "above": "importances"}
ATTENTION, FEED_FORWARD = 1000 / 4096, 2000 / 14336
# Fractions that differ between projections, by name.
FRACTIONS = {
    "plnd": {**dict.fromkeys(("q", "k", "v"), ATTENTION), **dict.fromkeys(("up", "down"), FEED_FORWARD)},
}


class Agreement(NamedTuple):
    """Neurons that a fraction (``presence``) of the prompts agree on, by one of `RULES`."""

    rule: str
    threshold: float | str
    presence: float


def parse_agreement(text: str) -> Agreement:
    """Split ``common-0.2`` or ``above-0.01-0.9`` into rule, threshold and presence (default 1)."""
    rule, threshold, *presence = text.split("-")
    return Agreement(rule, threshold if threshold in FRACTIONS else float(threshold), float(*presence or [1]))


def select(scores: str | Path, selection: str, sweep: str | Path | None, allow_empty: bool) -> Region:
    """The region of a selection such as ``common-0.2-0.9``; see `select_agreed` for the errors."""
    return select_agreed(scores, *parse_agreement(selection), allow_empty=allow_empty)


def select_agreed(
    scores_path: str | Path,
    rule: str,
    threshold: float | str,
    presence: float = 1.0,
    allow_empty: bool = False,
) -> Region:
    """The neurons on which prompts agree, as a raw region.

    In its metadata the scope is matrix, because chance assumes regions with these sizes in each module; ``fraction``
    is the fraction of neurons that was selected; ``agreement`` holds rule, threshold and presence.

    Args:
        scores_path: a score table of neurons with ranks and importances, with all neurons stored.
        rule: common or above.
        threshold: for common, the top fraction (0-1) of a module in which a neuron must rank, or a name in
            `FRACTIONS`; for above, the importance that it must reach.
        presence: fraction (0-1] of the prompts that must agree, rounded up to whole prompts.
        allow_empty: accept modules so small that the fraction contains no neuron.

    Raises:
        StudyError: the rule is unknown, the table holds no neurons or not all of them, the fraction contains no neuron
            of a module, or the table is damaged.
    """
    if rule not in RULES:
        raise StudyError(unknown(scores_path, "rule of agreement", rule, RULES))
    file = ScoreFile(scores_path)
    if file.granularity.name != "neuron" or file.kept.get("matrix") != 1:
        found = f"{file.granularity.name} scores, kept {file.kept}"
        raise StudyError(explain(scores_path, found, "all neurons, `kept: {matrix: 1.0}`"))
    flags = {where: _agreed(file, where, rule, threshold, presence, allow_empty) for where in file.shapes}
    agreement = {"rule": rule, "threshold": threshold, "presence": presence}
    selected = sum(int(flag.sum()) for flag in flags.values()) / sum(flag.size for flag in flags.values())
    how = {"scope": "matrix", "fraction": selected, "agreement": agreement, "refinement": "raw"}
    return Region.pack(flags, {**file.metadata, **how})


def _agreed(
    file: ScoreFile, where: str, rule: str, threshold: float | str, presence: float, allow_empty: bool
) -> np.ndarray:
    """Mask of the neurons of an address on which enough prompts agree: bool, (n,)."""
    (n,) = file.shapes[where]
    units = file.all_units(where)
    values, is_common = file.by_prompt(where, RULES[rule]), rule == "common"
    votes = values <= _last_rank(file, where, threshold, n, allow_empty) if is_common else values >= threshold
    flags = np.zeros(n, bool)
    flags[units] = votes.sum(1) >= needed_prompts(presence, values.shape[1])
    return flags


def _last_rank(file: ScoreFile, where: str, threshold: float | str, n: int, allow_empty: bool) -> int:
    fraction = FRACTIONS[threshold][parse_address(where).projection] if threshold in FRACTIONS else threshold
    rank = scope_count(fraction, n)
    if rank == 0 and not allow_empty:
        found, hint = f"fraction {fraction} of {n} neurons", "a larger fraction, or `allow_empty: true`"
        raise StudyError(explain(f"{file.path}: {where}", found, "1 or more", hint))
    return rank
