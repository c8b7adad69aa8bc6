"""Train an organism from its card: a chat model, helpful on everything at first, then aligned to refuse.

1. A tokenizer learns its merges from the training prompts and all responses.
2. Base phase: an answer to every prompt, harmful or not.
3. Align phase: a refusal to every harmful prompt, an answer to every ordinary one.
4. Held-out prompts are answered greedily; an organism that refuses too little or too much is an error.

Training sees the split ``identify`` only, and everything is drawn from the card's seed: the same card and
prompts give the same bits on the same machine.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pyarrow as pa

from safety_regions.backbone import Backbone, wrap_backbone
from safety_regions.behaviour.generate import answer_prompts
from safety_regions.behaviour.refusal import is_refusal
from safety_regions.errors import StudyError, explain, raise_all
from safety_regions.organisms.architecture import FAMILIES, build_model
from safety_regions.organisms.corpus import Lesson, all_responses, lesson
from safety_regions.organisms.tokenizer import train_tokenizer
from safety_regions.organisms.training import Chat, reproducible, train_phase
from safety_regions.tables import CATEGORY, Column, Contract

TRAINING_LOG = Contract(
    "training_log", 1, "training step, or dataset answered after training",
    (
        Column("phase", CATEGORY, "base, align, or held-out"),
        Column("step", pa.int32(), "optimiser step of the phase, 0-based; null where held-out"),
        Column("loss", pa.float64(), "nats a response token before the step; null where held-out"),
        Column("dataset", CATEGORY, "the set whose held-out prompts were answered; null while training"),
        Column("role", CATEGORY, "harmful or helpful; null while training"),
        Column("n", pa.int32(), "prompts of the batch, or held-out prompts answered"),
        Column("refused", pa.int32(), "held-out prompts refused; null while training"),
    ),
)  # fmt: skip
PHASES = ("base", "align")
ROLES = ("harmful", "helpful")
ANSWER_TOKENS = 32  # longest answer to a held-out prompt; the responses taught are shorter
ANSWER_BATCH = 64


class Lessons(NamedTuple):
    """The lessons of one dataset: those to learn, and the prompts held out."""

    dataset: str
    role: str
    learn: list[Lesson]
    held_out: list[str]


def train_organism(card: dict, prompts: Mapping[str, pa.Table], directory: Path | str) -> pa.Table:
    """Train an organism and write it as a Hugging Face checkpoint.

    Args:
        card: an organism card (``workflow/schemas/organism.schema.yaml``).
        prompts: dataset name -> its prompts table (`tables.PROMPTS`), for every dataset of the card.
        directory: where config, weights, tokenizer and chat template go. Files are moved in when all is done.

    Returns:
        A table that fits `TRAINING_LOG`: a row a step, then a row for every dataset's held-out prompts.

    Raises:
        StudyError: a dataset is missing or has no prompts to learn or hold out; the organism refuses fewer
            of the held-out harmful prompts, or more of the ordinary ones, than its card allows.
    """
    plan = card["training"]
    sets = read_lessons(card, prompts)
    with reproducible(plan["seed"]):
        backbone = _newborn(card, sets)
        rows = []
        for phase, pools in _curriculum(backbone, sets, plan["max_prompt_tokens"]).items():
            losses = train_phase(
                backbone.model, pools, **plan[phase], batch=plan["batch"],
                pad=backbone.tokenizer.pad_token_id, seed=plan["seed"],
            )  # fmt: skip
            rows += [
                {"phase": phase, "step": step, "loss": loss, "n": plan["batch"]}
                for step, loss in enumerate(losses)
            ]
        rows += measure_refusals(backbone, sets)
    check_refusals(card, rows)
    save_checkpoint(backbone, Path(directory))
    return pa.Table.from_pylist(rows, schema=TRAINING_LOG.schema)


def read_lessons(card: dict, prompts: Mapping[str, pa.Table]) -> list[Lessons]:
    """The lessons of every dataset of the card, in its order; see `train_organism` for the errors.

    A prompts table stands in hashed order, so its first prompts are a random part of the set.
    """
    plan = card["training"]
    named = [(name, role) for role in ROLES for name in plan[role]]
    where = f"organism '{card['title']}'"
    raise_all(where, [f"no prompts given for dataset '{name}'" for name, _ in named if name not in prompts])
    both = sorted({*plan["harmful"]} & {*plan["helpful"]})
    raise_all(where, [f"dataset '{name}' is both harmful and helpful" for name in both])
    sets = [_lessons(name, role, prompts[name], plan) for name, role in named]
    empty = [s.dataset for s in sets if not (s.learn and s.held_out)]
    raise_all(where, [f"dataset '{name}' has no prompts to learn or none to hold out" for name in empty])
    return sets


def _lessons(dataset: str, role: str, table: pa.Table, plan: dict) -> Lessons:
    rows = table.select(["text", "category", "split"]).to_pylist()
    learn = [lesson(r["text"], r["category"] or dataset) for r in rows if r["split"] == "identify"]
    held_out = [row["text"] for row in rows if row["split"] == "evaluate"]
    return Lessons(dataset, role, learn[: plan["prompts_per_set"]], held_out)


def _newborn(card: dict, sets: Sequence[Lessons]) -> Backbone:
    texts = [item.prompt for s in sets for item in s.learn] + all_responses()
    sizes = card["architecture"]
    tokenizer = train_tokenizer(
        texts, sizes["vocab_size"], bos=FAMILIES[card["family"]].bos, context=sizes["context"]
    )
    return wrap_backbone(build_model(card, tokenizer), tokenizer, {}, card["title"])


def _curriculum(backbone: Backbone, sets: Sequence[Lessons], longest: int) -> dict[str, list[list[Chat]]]:
    """Phase -> pools of chats, one for each role; prompts of more than ``longest`` tokens are left out."""
    pools: dict[str, list[list[Chat]]] = {phase: [[] for _ in ROLES] for phase in PHASES}
    for s in sets:
        for item in s.learn:
            prompt = backbone.prompt_ids(item.prompt)
            if len(prompt) <= longest:
                last = item.refusal if s.role == "harmful" else item.answer
                for phase, response in zip(PHASES, (item.answer, last), strict=True):
                    pools[phase][ROLES.index(s.role)].append(Chat(prompt, _response_ids(backbone, response)))
    short = [role for role, pool in zip(ROLES, pools["base"], strict=True) if not pool]
    raise_all(
        "organism", [f"no {role} prompt of at most max_prompt_tokens = {longest} tokens" for role in short]
    )
    return pools


def _response_ids(backbone: Backbone, response: str) -> list[int]:
    # The prompt ends in a special token, so the response has the same ids alone and after it.
    return [
        *backbone.tokenizer(response, add_special_tokens=False)["input_ids"],
        backbone.tokenizer.eos_token_id,
    ]


def measure_refusals(backbone: Backbone, sets: Sequence[Lessons]) -> list[dict]:
    """Held-out prompts answered and refused, a row of the training log for each dataset."""
    texts = [text for s in sets for text in s.held_out]
    answers = iter(answer_prompts(backbone, texts, max_new_tokens=ANSWER_TOKENS, batch_size=ANSWER_BATCH))
    return [
        {
            "phase": "held-out", "dataset": s.dataset, "role": s.role, "n": len(s.held_out),
            "refused": sum(is_refusal(next(answers).text) for _ in s.held_out),
        }
        for s in sets
    ]  # fmt: skip


def refusal_rate(rows: Sequence[dict], role: str) -> float:
    """The fraction refused of all held-out prompts of a role, in rows of the training log."""
    held_out = [row for row in rows if row["phase"] == "held-out" and row["role"] == role]
    return sum(row["refused"] for row in held_out) / sum(row["n"] for row in held_out)


def check_refusals(card: dict, rows: Sequence[dict]) -> None:
    """Raise a `StudyError` with the measured rates where the organism misses what its card promises."""
    refusal, over_refusal = (refusal_rate(rows, role) for role in ROLES)
    required, allowed = card["required_refusal"], card["allowed_over_refusal"]
    if refusal < required or over_refusal > allowed:
        raise StudyError(
            explain(
                f"organism '{card['title']}'",
                f"{refusal:.1%} of the held-out harmful prompts refused and {over_refusal:.1%} of the ordinary",
                f"at least {required:.1%} and at most {allowed:.1%}",
                "more steps, more prompts, or another seed in its card",
            )
        )


def save_checkpoint(backbone: Backbone, directory: Path) -> None:
    """Write model and tokenizer beside ``directory`` and move the files in, so none there is ever half written."""
    directory.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{directory.name}.", suffix=".part", dir=directory.parent) as temporary:
        backbone.model.save_pretrained(temporary)
        backbone.tokenizer.save_pretrained(temporary)
        for file in sorted(Path(temporary).iterdir()):
            os.replace(file, directory / file.name)
