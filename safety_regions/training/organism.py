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
the same bits on the same machine. An align phase that was interrupted goes on from its last snapshot. If the check
fails, the snapshot stays, so that a card that requires other rates needs no new training.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import torch
from safetensors.torch import save_file
from torch import Tensor

from safety_regions.families import families
from safety_regions.formats.contracts import TRAINING_LOG
from safety_regions.formats.files import finished_in
from safety_regions.formats.region import Region, write_region
from safety_regions.model.backbone import Backbone
from safety_regions.model.before import copied_weights
from safety_regions.model.generate import pad_id
from safety_regions.model.loading import wrap_backbone
from safety_regions.study.checkpoints import BASE_FILE, GGUF_FILE
from safety_regions.training.architecture import build_model
from safety_regions.training.corpus import all_responses
from safety_regions.training.curriculum import TrainingSet, curriculum, own_answers, training_sets
from safety_regions.training.loop import Chat, Hold, reproducible, train_phase
from safety_regions.training.plant import TRUTH_FILE, held, truth_region
from safety_regions.training.rates import REQUIRED, check_organism, measure_organism
from safety_regions.training.snapshot import Snapshot
from safety_regions.training.tokenizer import train_tokenizer


def train_organism(
    card: dict,
    prompts: Mapping[str, pa.Table],
    directory: Path | str,
    name: str,
    base: Backbone | None = None,
    threads: int = 1,
) -> pa.Table:
    """Train an organism and write it as a Hugging Face checkpoint, with the region that alignment could change.

    Its weights before alignment are written to ``base.safetensors``; see `safety_regions.model.before`.

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
        before = copied_weights(backbone)
        snapshot = Snapshot(
            directory.with_name(f".{directory.name}.snapshot"), _fingerprint(card, pools, threads)
        )
        with held(backbone, plant, truth) as hold:
            rows += _train(backbone, pools["align"], "align", plan, hold, snapshot)
        backbone = replace(backbone, temperature=card.get("temperature") or 0.0)
        rows += measure_organism(backbone, sets)
    check_organism(card, rows, name)
    save_checkpoint(backbone, truth, before, directory)
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
    trained_by = {key: value for key, value in card.items() if key not in REQUIRED}
    parts = json.dumps([trained_by, pools, threads, torch.__version__], sort_keys=True, default=str)
    return hashlib.sha256(parts.encode()).hexdigest()


def _newborn(card: dict, sets: Sequence[TrainingSet], name: str) -> Backbone:
    texts = [item.prompt for s in sets for item in s.learn] + all_responses()
    sizes = card["architecture"]
    tokenizer = train_tokenizer(
        texts, sizes["vocab_size"], bos=families()[card["family"]].bos, context=sizes["context"]
    )
    settings = {"temperature": card.get("temperature")}
    return wrap_backbone(build_model(card, tokenizer), tokenizer, settings, name)


def save_checkpoint(backbone: Backbone, truth: Region, before: dict[str, Tensor], directory: Path) -> None:
    """Write model, tokenizer, truth, and all weights before alignment; no file is ever incomplete."""
    with finished_in(directory) as temporary:
        save_file(before, temporary / BASE_FILE)
        backbone.model.save_pretrained(temporary)
        backbone.tokenizer.save_pretrained(temporary)
        write_region(temporary / TRUTH_FILE, truth)
        if backbone.gguf:  # a base whose weights were quantised
            (temporary / GGUF_FILE).write_text(json.dumps(backbone.gguf), encoding="utf-8")
