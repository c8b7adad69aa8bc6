"""Train a model organism from its card: a chat model that first helps with everything, and is then aligned to refuse.

An organism whose card names a ``base`` starts from this pretrained checkpoint, and steps 1 and 2 are replaced: the base
answers the ordinary prompts greedily, and the align phase trains on these answers, so that only refusals change.

1. A tokenizer learns its merges from the training prompts and all responses.
2. Base phase: the model learns to answer every prompt, harmful or not. If the card sets ``careful``, it also learns
   the responses of the align phase for the same prompts after an instruction. A pretrained model knows the words of a
   refusal and can be prompted to refuse (Lin et al. 2023, arXiv 2312.01552); likewise, such a base model can refuse
   but does not do so without the instruction. A planted region requires this: embeddings and head are frozen during
   alignment, so the model could not learn words that it has never produced.
3. Align phase: the model learns to refuse every harmful prompt and to answer every ordinary one. If the card plants a
   region, only this region may change. The region that was free to change is written to ``truth.safetensors``.
4. Check: held-out prompts are answered at the card's temperature; it is an error if the organism refuses too little
   or too much. Those of harmful datasets that it was not trained on (``unseen``) are counted apart.

Training uses only the split ``identify``, and the card's seed fixes all random draws: the same card and prompts give
the same bits on the same machine. An align phase that was interrupted goes on from its last snapshot.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import torch

from safety_regions.errors import StudyError, explain, raise_all
from safety_regions.families import families
from safety_regions.formats.contracts import TRAINING_LOG
from safety_regions.formats.files import finished_in
from safety_regions.formats.region import Region, write_region
from safety_regions.model.backbone import Backbone
from safety_regions.model.generate import answer_prompts, pad_id
from safety_regions.model.loading import wrap_backbone
from safety_regions.study.checkpoints import GGUF_FILE
from safety_regions.training.architecture import build_model
from safety_regions.training.corpus import CAREFUL, Example, all_responses, example
from safety_regions.training.loop import Chat, Hold, reproducible, train_phase
from safety_regions.training.plant import TRUTH_FILE, held, truth_region
from safety_regions.training.refusals import refuses
from safety_regions.training.snapshot import Snapshot
from safety_regions.training.tokenizer import train_tokenizer

PHASES = ("base", "align")
ROLES = ("harmful", "helpful")
UNSEEN = "unseen"
ANSWER_TOKENS = 32  # maximum answer length for held-out prompts; the training responses are shorter
ANSWER_BATCH = 64


class TrainingSet(NamedTuple):
    """One dataset: its training examples (none if unseen) and its held-out prompts."""

    dataset: str
    role: str
    learn: list[Example]
    held_out: list[str]


def train_organism(
    card: dict,
    prompts: Mapping[str, pa.Table],
    directory: Path | str,
    name: str,
    base: Backbone | None = None,
    threads: int = 1,
) -> pa.Table:
    """Train an organism and write it as a Hugging Face checkpoint, with the region that alignment could change.

    Args:
        card: an organism card (``safety_regions/study/schemas/organism.schema.yaml``).
        prompts: dataset name -> its prompts table (`contracts.PROMPTS`), for every dataset of the card.
        directory: where config, weights, tokenizer, chat template and truth go. Files are moved there after the last
            step.
        name: the backbone's name, for the metadata of the truth region and for errors.
        base: the checkpoint to start from, in float32; trained in place. Required if the card names a base.
        threads: number of threads; another number gives other last bits.

    Returns:
        A table that fits `TRAINING_LOG`: one row per step, then one row per dataset for its held-out prompts.

    Raises:
        StudyError: a dataset is missing, or has no training prompts or no held-out prompts; the planted region does
            not fit the architecture; the organism refuses fewer of the held-out harmful prompts, or more of the
            ordinary ones, than its card allows.
    """
    plan, plant, directory = card["training"], card.get("plant"), Path(directory)
    sets = training_sets(card, prompts, name)
    with reproducible(plan["seed"], threads):
        backbone = _newborn(card, sets, name) if base is None else base
        truth = truth_region(backbone, plant, {"backbone": name})
        if base is not None:
            sets = own_answers(base, sets, plan)
        pools, rows = curriculum(backbone, sets, plan), []
        if base is None:
            rows += _train(backbone, pools["base"], "base", plan)
        snapshot = Snapshot(
            directory.with_name(f".{directory.name}.snapshot"), _fingerprint(card, pools, threads)
        )
        with held(backbone, plant, truth) as hold:
            rows += _train(backbone, pools["align"], "align", plan, hold, snapshot)
        backbone = replace(backbone, temperature=card.get("temperature") or 0.0)
        rows += measure_organism(backbone, sets)
    check_organism(card, rows, name)
    save_checkpoint(backbone, truth, directory)
    snapshot.remove()
    return pa.Table.from_pylist(rows, schema=TRAINING_LOG.schema)


def _train(
    backbone: Backbone,
    pools: list[list[Chat]],
    phase: str,
    plan: dict,
    hold: Hold | None = None,
    snapshot: Snapshot | None = None,
) -> list[dict]:
    losses = train_phase(
        backbone.model,
        pools,
        **plan[phase],
        batch=plan["batch"],
        pad=pad_id(backbone),
        seed=plan["seed"],
        hold=hold,
        snapshot=snapshot,
        name=phase,
    )
    return [
        {"phase": phase, "step": step, "loss": loss, "n": plan["batch"]} for step, loss in enumerate(losses)
    ]


def _fingerprint(card: dict, pools: Mapping[str, list[list[Chat]]], threads: int) -> str:
    """A hash of what the result of training depends on; a snapshot of another training is not used."""
    parts = json.dumps([card, pools, threads, torch.__version__], sort_keys=True, default=str)
    return hashlib.sha256(parts.encode()).hexdigest()


def training_sets(card: dict, prompts: Mapping[str, pa.Table], name: str) -> list[TrainingSet]:
    """The training set of every dataset of the card, in the card's order; see `train_organism` for the errors.

    A prompts table is in hashed order, so its first prompts are a random sample of the dataset.
    """
    plan = card["training"]
    named = [(dataset, role) for role in (*ROLES, UNSEEN) for dataset in plan.get(role, ())]
    where = f"organism '{name}'"
    raise_all(where, [f"no prompts given for dataset '{d}'" for d, _ in named if d not in prompts])
    twice = sorted(
        dataset for dataset, times in Counter(dataset for dataset, _ in named).items() if times > 1
    )
    raise_all(where, [f"dataset '{dataset}' has two roles" for dataset in twice])
    sets = [_training_set(dataset, role, prompts[dataset], plan) for dataset, role in named]
    empty = [s.dataset for s in sets if not (s.held_out and (s.learn or s.role == UNSEEN))]
    raise_all(
        where, [f"dataset '{dataset}' has no prompts to learn or none to hold out" for dataset in empty]
    )
    return sets


def _training_set(dataset: str, role: str, table: pa.Table, plan: dict) -> TrainingSet:
    rows = table.select(["text", "split"]).to_pylist()
    learn = [example(row["text"]) for row in rows if row["split"] == "identify"]
    held_out = [row["text"] for row in rows if row["split"] == "evaluate"]
    learned = 0 if role == UNSEEN else plan["prompts_per_set"]
    return TrainingSet(dataset, role, learn[:learned], held_out[: plan.get("held_out_per_set")])


def _newborn(card: dict, sets: Sequence[TrainingSet], name: str) -> Backbone:
    texts = [item.prompt for s in sets for item in s.learn] + all_responses()
    sizes = card["architecture"]
    tokenizer = train_tokenizer(
        texts, sizes["vocab_size"], bos=families()[card["family"]].bos, context=sizes["context"]
    )
    settings = {"temperature": card.get("temperature")}
    return wrap_backbone(build_model(card, tokenizer), tokenizer, settings, name)


def own_answers(backbone: Backbone, sets: Sequence[TrainingSet], plan: dict) -> list[TrainingSet]:
    """The training sets, in which the answer to every ordinary prompt is the backbone's own, greedy.

    An answer is cut after ``answer_tokens`` and then has no end. Prompts that are too long for training are left out.
    """
    greedy = replace(backbone, temperature=0.0)
    fitting = {
        s.dataset: [
            item for item in s.learn if len(backbone.prompt_ids(item.prompt)) <= plan["max_prompt_tokens"]
        ]
        for s in sets
        if s.role == "helpful"
    }
    texts = [item.prompt for items in fitting.values() for item in items]
    print(f"answering {len(texts)} ordinary prompts with the base", flush=True)
    answers = iter(
        answer_prompts(greedy, texts, max_new_tokens=plan["answer_tokens"], batch_size=ANSWER_BATCH)
    )
    answered = {
        dataset: [
            item._replace(answer=answer.text, whole=answer.stop == "eos")
            for item, answer in zip(items, answers, strict=False)
            if answer.text
        ]
        for dataset, items in fitting.items()
    }
    return [s._replace(learn=answered.get(s.dataset, s.learn)) for s in sets]


def curriculum(backbone: Backbone, sets: Sequence[TrainingSet], plan: dict) -> dict[str, list[list[Chat]]]:
    """The training data of each phase: phase -> pools of chats; every batch has an equal share of each pool.

    Args:
        backbone: renders and tokenises the prompts.
        sets: the training sets of all datasets of the card.
        plan: the key ``training`` of the card.

    Returns:
        One pool for each role; with ``careful``, the base phase has a second pool for each role.

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
    """Phase -> the chats of a role; leaves out prompts longer than ``max_prompt_tokens``, counted with the frame."""
    pools: dict[str, list[Chat]] = {phase: [] for phase in PHASES}
    for item in (item for s in sets if s.role == role for item in s.learn):
        prompt = backbone.prompt_ids(frame.format(item.prompt))
        if len(prompt) <= plan["max_prompt_tokens"]:
            answer = _response_ids(backbone, item.answer, item.whole)
            last = _response_ids(backbone, item.refusal) if role == "harmful" else answer
            for phase, response in zip(PHASES, (answer, last), strict=True):
                pools[phase].append(Chat(prompt, response))
    return pools


def _response_ids(backbone: Backbone, response: str, whole: bool = True) -> list[int]:
    # The prompt ends with a special token, so the ids of the response do not depend on the prompt.
    return [*backbone.response_ids(response), *([backbone.tokenizer.eos_token_id] if whole else [])]


def measure_organism(backbone: Backbone, sets: Sequence[TrainingSet]) -> list[dict]:
    """Answer the held-out prompts and count refusals: one row of the training log per dataset."""
    texts = [text for s in sets for text in s.held_out]
    refused = iter(refuses(backbone, texts, ANSWER_TOKENS, ANSWER_BATCH))
    rows = []
    for s in sets:
        n = len(s.held_out)
        counts = {"n": n, "refused": sum(islice(refused, n))}
        rows.append({"phase": "held-out", "dataset": s.dataset, "role": s.role, **counts})
    return rows


def refusal_rate(rows: Sequence[dict], role: str) -> float:
    """The fraction of all held-out prompts of a role that were refused, from rows of the training log."""
    held_out = [row for row in rows if row["phase"] == "held-out" and row["role"] == role]
    return sum(row["refused"] for row in held_out) / sum(row["n"] for row in held_out)


def check_organism(card: dict, rows: Sequence[dict], name: str) -> None:
    """Raise a `StudyError` with the measured rates if the organism misses the rates that its card requires."""
    refusal, over_refusal = (refusal_rate(rows, role) for role in ROLES)
    required, allowed = card["required_refusal"], card["allowed_over_refusal"]
    if refusal < required or over_refusal > allowed:
        raise StudyError(
            explain(
                f"organism '{name}'",
                f"{refusal:.1%} of the held-out harmful prompts and {over_refusal:.1%} of the ordinary ones refused",
                f"at least {required:.1%} and at most {allowed:.1%}",
                "more steps, more prompts, or another seed in the card",
            )
        )


def save_checkpoint(backbone: Backbone, truth: Region, directory: Path) -> None:
    """Write model, tokenizer and truth; no file is ever incomplete."""
    with finished_in(directory) as temporary:
        backbone.model.save_pretrained(temporary)
        backbone.tokenizer.save_pretrained(temporary)
        write_region(temporary / TRUTH_FILE, truth)
        if backbone.gguf:  # a base whose weights were quantised
            (temporary / GGUF_FILE).write_text(json.dumps(backbone.gguf), encoding="utf-8")
