"""How much an organism refuses: its answers to held-out prompts, and the rates that its card requires."""

from collections.abc import Sequence
from itertools import islice

from safety_regions.errors import StudyError, explain
from safety_regions.model.backbone import Backbone
from safety_regions.training.curriculum import ANSWER_BATCH, ROLES, TrainingSet
from safety_regions.training.refusals import refuses

REQUIRED = ("required_refusal", "allowed_over_refusal")  # keys of a card that training does not depend on
ANSWER_TOKENS = 32  # maximum answer length; the training responses are shorter


def measure_organism(backbone: Backbone, sets: Sequence[TrainingSet]) -> list[dict]:
    """Answer the held-out prompts and count refusals: one row of the training log per dataset."""
    texts = [text for s in sets for text in s.held_out]
    refused = iter(refuses(backbone, texts, ANSWER_TOKENS, ANSWER_BATCH))
    rows = []
    for s in sets:
        n = len(s.held_out)
        counts = {"n": n, "refused": sum(islice(refused, n))}
        rows.append({"phase": "held-out", "dataset": s.dataset, "role": s.role, **counts})
        print(f"{s.dataset} ({s.role}): {counts['refused']} of {n} held-out prompts refused", flush=True)
    return rows


def refusal_rate(rows: Sequence[dict], role: str) -> float:
    """The fraction of all held-out prompts of a role that were refused, from rows of the training log."""
    held_out = [row for row in rows if row["phase"] == "held-out" and row["role"] == role]
    return sum(row["refused"] for row in held_out) / sum(row["n"] for row in held_out)


def check_organism(card: dict, rows: Sequence[dict], name: str) -> None:
    """Raise a `StudyError` with the measured rates if the organism misses the rates that its card requires."""
    refusal, over_refusal = (refusal_rate(rows, role) for role in ROLES)
    required, allowed = (card[key] for key in REQUIRED)
    if refusal < required or over_refusal > allowed:
        raise StudyError(
            explain(
                f"organism '{name}'",
                f"{refusal:.1%} of the held-out harmful prompts and {over_refusal:.1%} of the ordinary ones refused",
                f"at least {required:.1%} and at most {allowed:.1%}",
                "more steps, more prompts, or another seed in the card",
            )
        )
