"""Train an organism from its card: a chat model, helpful on everything at first, then aligned to refuse.

1. A tokenizer learns its merges from the training prompts and all responses.
2. Base phase: an answer to every prompt, harmful or not. Where the card says ``careful``, also what comes after
   the align phase, to the same prompts behind an instruction. As a pretrained model knows the words of a refusal
   and can be prompted to refuse (Lin et al. 2023, arXiv 2312.01552), such a base can refuse but does not by itself.
   A plant needs that: embeddings and head are frozen in alignment, and words never said can then not be learned.
3. Align phase: a refusal to every harmful prompt, an answer to every ordinary one. Where the card plants a
   region, only that may change; what was free to change is written as the region ``truth.safetensors``.
4. Held-out prompts are answered greedily; an organism that refuses too little or too much is an error.

Training sees the split ``identify`` only, and everything is drawn from the card's seed: the same card and
prompts give the same bits on the same machine.
"""

import os
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pyarrow as pa

from safety_regions.errors import StudyError, explain, raise_all
from safety_regions.families import families
from safety_regions.formats.contracts import TRAINING_LOG
from safety_regions.formats.region import Region, write_region
from safety_regions.model.backbone import Backbone, wrap_backbone
from safety_regions.training.architecture import build_model
from safety_regions.training.corpus import CAREFUL, Example, all_responses, example
from safety_regions.training.loop import Chat, Hold, reproducible, train_phase
from safety_regions.training.plant import TRUTH_FILE, held, truth_region
from safety_regions.training.refusals import refuses
from safety_regions.training.tokenizer import train_tokenizer

PHASES = ("base", "align")
ROLES = ("harmful", "helpful")
ANSWER_TOKENS = 32  # longest answer to a held-out prompt; the responses taught are shorter
ANSWER_BATCH = 64


class TrainingSet(NamedTuple):
    """One dataset: the examples to learn, and the prompts held out."""

    dataset: str
    role: str
    learn: list[Example]
    held_out: list[str]


def train_organism(
    card: dict, prompts: Mapping[str, pa.Table], directory: Path | str, name: str | None = None
) -> pa.Table:
    """Train an organism and write it as a Hugging Face checkpoint, with the region that alignment could change.

    Args:
        card: an organism card (``safety_regions/study/schemas/organism.schema.yaml``).
        prompts: dataset name -> its prompts table (`contracts.PROMPTS`), for every dataset of the card.
        directory: where config, weights, tokenizer, chat template and truth go. Files are moved in when all is
            done.
        name: the backbone's name in the stamp of the truth; the card's title by default.

    Returns:
        A table that fits `TRAINING_LOG`: a row a step, then a row for every dataset's held-out prompts.

    Raises:
        StudyError: a dataset is missing or has no prompts to learn or hold out; the plant does not fit the
            architecture; the organism refuses fewer of the held-out harmful prompts, or more of the ordinary
            ones, than its card allows.
    """
    plan, plant = card["training"], card.get("plant")
    sets = training_sets(card, prompts)
    with reproducible(plan["seed"]):
        backbone = _newborn(card, sets)
        truth = truth_region(backbone, plant, {"backbone": name or card["title"], "title": card["title"]})
        pools = curriculum(backbone, sets, plan)
        rows = _train(backbone, pools["base"], "base", plan)
        with held(backbone, plant, truth) as hold:
            rows += _train(backbone, pools["align"], "align", plan, hold)
        rows += measure_organism(backbone, sets)
    check_organism(card, rows)
    save_checkpoint(backbone, truth, Path(directory))
    return pa.Table.from_pylist(rows, schema=TRAINING_LOG.schema)


def _train(
    backbone: Backbone, pools: list[list[Chat]], phase: str, plan: dict, hold: Hold | None = None
) -> list[dict]:
    losses = train_phase(
        backbone.model,
        pools,
        **plan[phase],
        batch=plan["batch"],
        pad=backbone.tokenizer.pad_token_id,
        seed=plan["seed"],
        hold=hold,
    )
    return [
        {"phase": phase, "step": step, "loss": loss, "n": plan["batch"]} for step, loss in enumerate(losses)
    ]


def training_sets(card: dict, prompts: Mapping[str, pa.Table]) -> list[TrainingSet]:
    """The training set of every dataset of the card, in its order; see `train_organism` for the errors.

    A prompts table stands in hashed order, so its first prompts are a random part of the set.
    """
    plan = card["training"]
    named = [(name, role) for role in ROLES for name in plan[role]]
    where = f"organism '{card['title']}'"
    raise_all(where, [f"no prompts given for dataset '{name}'" for name, _ in named if name not in prompts])
    both = sorted({*plan["harmful"]} & {*plan["helpful"]})
    raise_all(where, [f"dataset '{name}' is both harmful and helpful" for name in both])
    sets = [_training_set(name, role, prompts[name], plan) for name, role in named]
    empty = [s.dataset for s in sets if not (s.learn and s.held_out)]
    raise_all(where, [f"dataset '{name}' has no prompts to learn or none to hold out" for name in empty])
    return sets


def _training_set(dataset: str, role: str, table: pa.Table, plan: dict) -> TrainingSet:
    rows = table.select(["text", "category", "split"]).to_pylist()
    learn = [example(r["text"], r["category"] or dataset) for r in rows if r["split"] == "identify"]
    held_out = [row["text"] for row in rows if row["split"] == "evaluate"]
    return TrainingSet(dataset, role, learn[: plan["prompts_per_set"]], held_out)


def _newborn(card: dict, sets: Sequence[TrainingSet]) -> Backbone:
    texts = [item.prompt for s in sets for item in s.learn] + all_responses()
    sizes = card["architecture"]
    tokenizer = train_tokenizer(
        texts, sizes["vocab_size"], bos=families()[card["family"]].bos, context=sizes["context"]
    )
    return wrap_backbone(build_model(card, tokenizer), tokenizer, {}, card["title"])


def curriculum(backbone: Backbone, sets: Sequence[TrainingSet], plan: dict) -> dict[str, list[list[Chat]]]:
    """What each phase learns: phase -> pools of chats, of which every batch has equal shares.

    Args:
        backbone: renders and tokenises.
        sets: of every dataset of the card.
        plan: the card's training.

    Returns:
        A pool for each role; in the base phase of a careful plan, a second one for each role.

    Raises:
        StudyError: a role has no prompt that is short enough.
    """
    pools = [_chats(backbone, sets, role, plan) for role in ROLES]
    phases = {phase: [chats[phase] for chats in pools] for phase in PHASES}
    if plan.get("careful"):
        phases["base"] += [_chats(backbone, sets, role, plan, CAREFUL)["align"] for role in ROLES]
    short = [ROLES[number % len(ROLES)] for number, pool in enumerate(phases["base"]) if not pool]
    longest = plan["max_prompt_tokens"]
    raise_all(
        "organism", [f"no {role} prompt of at most max_prompt_tokens = {longest} tokens" for role in short]
    )
    return phases


def _chats(
    backbone: Backbone, sets: Sequence[TrainingSet], role: str, plan: dict, frame: str = "{}"
) -> dict[str, list[Chat]]:
    """Phase -> the chats of a role; prompts, in their frame, of more than ``max_prompt_tokens`` are left out."""
    pools: dict[str, list[Chat]] = {phase: [] for phase in PHASES}
    for item in (item for s in sets if s.role == role for item in s.learn):
        prompt = backbone.prompt_ids(frame.format(item.prompt))
        if len(prompt) <= plan["max_prompt_tokens"]:
            last = item.refusal if role == "harmful" else item.answer
            for phase, response in zip(PHASES, (item.answer, last), strict=True):
                pools[phase].append(Chat(prompt, _response_ids(backbone, response)))
    return pools


def _response_ids(backbone: Backbone, response: str) -> list[int]:
    # The prompt ends in a special token, so the response has the same ids alone and after it.
    return [
        *backbone.tokenizer(response, add_special_tokens=False)["input_ids"],
        backbone.tokenizer.eos_token_id,
    ]


def measure_organism(backbone: Backbone, sets: Sequence[TrainingSet]) -> list[dict]:
    """Held-out prompts answered and refused, a row of the training log for each dataset."""
    texts = [text for s in sets for text in s.held_out]
    refused = iter(refuses(backbone, texts, ANSWER_TOKENS, ANSWER_BATCH))
    rows = []
    for s in sets:
        n = len(s.held_out)
        counts = {"n": n, "refused": sum(islice(refused, n))}
        rows.append({"phase": "held-out", "dataset": s.dataset, "role": s.role, **counts})
    return rows


def refusal_rate(rows: Sequence[dict], role: str) -> float:
    """The fraction refused of all held-out prompts of a role, in rows of the training log."""
    held_out = [row for row in rows if row["phase"] == "held-out" and row["role"] == role]
    return sum(row["refused"] for row in held_out) / sum(row["n"] for row in held_out)


def check_organism(card: dict, rows: Sequence[dict]) -> None:
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


def save_checkpoint(backbone: Backbone, truth: Region, directory: Path) -> None:
    """Write model, tokenizer and truth beside ``directory`` and move the files in, so none is ever half written."""
    directory.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{directory.name}.", suffix=".part", dir=directory.parent) as temporary:
        backbone.model.save_pretrained(temporary)
        backbone.tokenizer.save_pretrained(temporary)
        write_region(Path(temporary) / TRUTH_FILE, truth)
        for file in sorted(Path(temporary).iterdir()):
            os.replace(file, directory / file.name)
