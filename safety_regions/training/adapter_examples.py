"""What a reference adapter is trained on: the backbone's own refusals and answers, and what it should not prefer.

A harmful prompt that the backbone refuses gives two chats: chosen, its own refusal, and rejected, a content-free
compliance of `safety_regions.training.corpus`. An ordinary prompt gives its own answer. Prompts held out
(split ``evaluate``) are left out. No end token is learned: which token ends a turn differs between checkpoints,
and the backbone knows its own.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa

from safety_regions.errors import StudyError, explain
from safety_regions.model.backbone import Backbone
from safety_regions.training.corpus import example
from safety_regions.training.loop import Chat


class Examples(NamedTuple):
    """Chats to train on; ``refusals`` and ``compliances`` belong to the same prompts, one to one.

    ``skipped`` counts, for each dataset and reason, the prompts left out.
    """

    refusals: list[Chat]
    compliances: list[Chat]
    answers: list[Chat]
    skipped: dict[str, int]


def read_examples(
    backbone: Backbone,
    responses: Mapping[str, pa.Table],
    harmful: Sequence[str],
    helpful: Sequence[str],
    max_tokens: int,
) -> Examples:
    """The training examples of an adapter, in the order of the datasets and their rows.

    Args:
        backbone: whose template and tokenizer are used.
        responses: dataset -> the backbone's responses (`contracts.RESPONSES`).
        harmful: datasets whose refused prompts are used.
        helpful: datasets whose prompts that were not refused are used.
        max_tokens: longest chat, tokens of prompt and response; longer ones are left out.

    Raises:
        StudyError: a dataset has no usable prompt.
    """
    skipped: dict[str, int] = {}
    pairs = []
    for dataset in harmful:
        rows = _usable(dataset, responses[dataset], True, skipped)
        taught = [(r["prompt"], r["response"], example(r["prompt"], dataset).answer) for r in rows]
        pairs += _encoded(backbone, dataset, taught, max_tokens, skipped)
    answers = []
    for dataset in helpful:
        rows = _usable(dataset, responses[dataset], False, skipped)
        taught = [(r["prompt"], r["response"]) for r in rows]
        answers += _encoded(backbone, dataset, taught, max_tokens, skipped)
    return Examples([p[0] for p in pairs], [p[1] for p in pairs], [a[0] for a in answers], skipped)


def _usable(dataset: str, table: pa.Table, refused: bool, skipped: dict[str, int]) -> list[dict]:
    rows = [row for row in table.to_pylist() if row["split"] == "identify"]
    usable = [row for row in rows if row["refused"] == refused and row["n_tokens"] > 0]
    _note(skipped, f"{dataset}: {'not refused' if refused else 'refused'}", len(rows) - len(usable))
    return usable


def _encoded(
    backbone: Backbone, dataset: str, taught: Sequence[tuple], max_tokens: int, skipped: dict[str, int]
) -> list[list[Chat]]:
    """One list of chats for every prompt, one chat for each of its responses."""
    chats = [[_chat(backbone, prompt, text) for text in texts] for prompt, *texts in taught]
    fit = [group for group in chats if all(len(c.prompt) + len(c.response) <= max_tokens for c in group)]
    _note(skipped, f"{dataset}: longer than {max_tokens} tokens", len(chats) - len(fit))
    if not fit:
        reasons = ((reason.removeprefix(f"{dataset}: "), n) for reason, n in skipped.items())
        why = ", ".join(f"{n} {reason}" for reason, n in reasons if f"{dataset}: {reason}" in skipped)
        raise StudyError(
            explain(
                f"adapters: '{dataset}'",
                f"no prompt to learn from ({why or 'none answered'})",
                "refused harmful prompts and answered ordinary ones, within max_tokens",
                "another dataset, or more `samples: candidates`",
            )
        )
    return fit


def _chat(backbone: Backbone, prompt: str, response: str) -> Chat:
    ids, length = backbone.encode(prompt, response)
    return Chat(ids[:length], ids[length:])


def _note(skipped: dict[str, int], reason: str, count: int) -> None:
    if count:
        skipped[reason] = count
