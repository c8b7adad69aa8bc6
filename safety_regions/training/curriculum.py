"""What an organism is trained on: the examples of each dataset, and the chats of each phase."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import pyarrow as pa

from safety_regions.errors import raise_all
from safety_regions.model.backbone import Backbone
from safety_regions.model.generate import answer_prompts
from safety_regions.training.corpus import CAREFUL, Example, example
from safety_regions.training.loop import Chat

PHASES = ("base", "align")
ROLES = ("harmful", "helpful")
UNSEEN = "unseen"
ANSWER_BATCH = 64  # prompts that are answered together


class TrainingSet(NamedTuple):
    """One dataset: its training examples (none if unseen) and its held-out prompts."""

    dataset: str
    role: str
    learn: list[Example]
    held_out: list[str]


def training_sets(card: dict, prompts: Mapping[str, pa.Table], name: str) -> list[TrainingSet]:
    """The training set of every dataset of the card, in the card's order; see `organism.train_organism` for the errors.

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
