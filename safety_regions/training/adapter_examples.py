"""Training examples of a reference adapter: the backbone's own refusals and answers, and rejected compliances.

A harmful prompt that the backbone refuses gives two chats: the backbone's refusal (chosen), and a content-free
compliance from `safety_regions.training.corpus` (rejected). An ordinary prompt gives one chat with the backbone's
answer. Held-out prompts (split ``evaluate``) are not used. Responses have no end token: the token that ends a turn
differs between checkpoints, and the backbone already produces its own.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa

from safety_regions.errors import StudyError, explain
from safety_regions.model.backbone import Backbone
from safety_regions.training.corpus import example
from safety_regions.training.loop import Chat


class Examples(NamedTuple):
    """Chats to train on; ``refusals[i]`` and ``compliances[i]`` belong to the same prompt.

    ``skipped`` counts the prompts left out, for each dataset and reason.
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
    """Read the training examples of an adapter, in the order of the datasets and their rows.

    Args:
        backbone: whose template and tokenizer are used.
        responses: dataset -> the backbone's responses (`contracts.RESPONSES`).
        harmful: datasets from which the refused prompts are used.
        helpful: datasets from which the prompts that were not refused are used.
        max_tokens: maximum length of a chat (prompt and response), tokens; longer ones are left out.

    Raises:
        StudyError: a dataset has no usable prompt.
    """
    skipped: dict[str, int] = {}
    pairs = []
    for dataset in harmful:
        rows = _usable(dataset, responses[dataset], True, skipped)
        taught = [(r["prompt"], r["response"], example(r["prompt"]).answer) for r in rows]
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
    """For every prompt, a list with one chat for each of its responses."""
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
                "harmful prompts that were refused and ordinary prompts that were answered, within `max_tokens`",
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
