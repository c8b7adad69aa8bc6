"""Train a backbone's reference adapter: a supervised step on safe responses, then a preference step (DPO).

1. Supervised: the backbone's own refusals of harmful prompts and answers to ordinary ones, an equal share.
2. Preference: of two responses to a harmful prompt the refusal is chosen, a compliance rejected. The model after
   step 1 is DPO's reference.
3. Held-out harmful prompts are answered; an adapter with which the backbone refuses too little is an error.

Recipe and defaults of Yi et al. 2024 (NLSR, config/SFT.yaml and DPO.yaml); there the supervised adapter is merged
into the model first, here both steps train one adapter on an aligned backbone. The layers come from peft. The
loop is our own, not trl's: trl tokenises texts by itself, where an adapter should be trained on the very tokens
that scoring reads (`Backbone.encode`). The same card, responses and seed give the same bits on the same machine.
"""

import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, TypeVar

import pyarrow as pa
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor

from safety_regions.errors import StudyError, explain
from safety_regions.formats.contracts import ADAPTER_LOG
from safety_regions.model.backbone import Backbone
from safety_regions.model.generate import pad_id
from safety_regions.model.halving import halving
from safety_regions.model.lora import read_adapter
from safety_regions.study.adapters import ADAPTER_FILES
from safety_regions.training.adapter_examples import Examples, read_examples
from safety_regions.training.adapter_losses import preference_losses, supervised_losses, with_reference
from safety_regions.training.adapter_refusals import check_adapter, held_out_prompts, measure_adapter
from safety_regions.training.loop import endless, reproducible, take_steps

Item = TypeVar("Item")


class Trained(NamedTuple):
    """The log, a table that fits `ADAPTER_LOG`, and what the adapter learned from, for its stamp."""

    log: pa.Table
    stamp: dict


def train_adapter(
    backbone: Backbone,
    plan: dict,
    responses: Mapping[str, pa.Table],
    directory: str | Path,
    batch_size: int = 8,
) -> Trained:
    """Train an adapter and write it in peft's format; the backbone is as it was before.

    Args:
        backbone: the model the adapter belongs to.
        plan: the key ``adapters`` of the config, its defaults filled in.
        responses: dataset -> the backbone's responses (`contracts.RESPONSES`), for all of the plan's datasets.
        directory: where weights (safetensors) and config go; files are moved in when all is done.
        batch_size: chats, pairs or prompts a pass; changes nothing beyond rounding.

    Raises:
        StudyError: the rank is larger than a side of a layer, a dataset teaches nothing, or the backbone refuses
            too few of the held-out harmful prompts with the adapter.
    """
    _check_rank(backbone, plan["rank"])
    examples = read_examples(backbone, responses, plan["harmful"], plan["helpful"], plan["max_tokens"])
    # Matrix products on a GPU are reproducible only with a workspace of fixed size.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with _moved_when_done(Path(directory)) as folder:
        with reproducible(plan["seed"]), adapted(backbone, plan["rank"], plan["alpha"]) as model:
            rows = list(_train(model, examples, plan, pad_id(backbone), batch_size))
            model.save_pretrained(folder, save_embedding_layers=False)
        rows += _held_out(backbone, folder, responses, plan, batch_size)
    stamp = {
        "plan": plan,
        "pairs": len(examples.refusals),
        "answers": len(examples.answers),
        "skipped": examples.skipped,
    }
    return Trained(pa.Table.from_pylist(rows, schema=ADAPTER_LOG.schema), stamp)


def _check_rank(backbone: Backbone, rank: int) -> None:
    sides = {linear.slices[0].address: min(linear.module.weight.shape) for linear in backbone.linears}
    smallest = min(sides, key=sides.get)
    if rank > sides[smallest]:
        raise StudyError(
            explain(
                "adapters: rank",
                f"{rank}",
                f"at most {sides[smallest]}, the smaller side of {smallest}",
                f"`rank: {max(1, sides[smallest] // 4)}` or another that leaves the adapter of low rank",
            )
        )


@contextmanager
def adapted(backbone: Backbone, rank: int, alpha: float | None = None) -> Iterator[PeftModel]:
    """The backbone's model with a fresh adapter on all scored layers (B = 0); taken off again at the end.

    Args:
        backbone: its blocks' linear layers get the adapter, nothing else does.
        rank: r.
        alpha: the product B A is multiplied by alpha / r; twice the rank by default.
    """
    blocks = backbone.family.layers[backbone.model.config.model_type]
    paths = "|".join(path.replace(".", r"\.") for path in backbone.family.modules)
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank if alpha is None else alpha,
        target_modules=blocks.replace(".", r"\.") + rf"\.\d+\.({paths})",
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(backbone.model, config)
    try:
        yield model
    finally:
        model.unload()


def _train(model: PeftModel, examples: Examples, plan: dict, pad: int, size: int) -> Iterator[dict]:
    first, second = plan["supervised"], plan["preference"]
    pools = [pool for pool in (examples.refusals, examples.answers) if pool]
    losses = partial(supervised_losses, model, pad=pad)
    yield from _phase(model, "supervised", pools, losses, first, plan["seed"], size)
    both = list(zip(examples.refusals, examples.compliances, strict=True))
    pairs = with_reference(model, both, pad, size)
    losses = partial(preference_losses, model, pad=pad, beta=second["beta"])
    yield from _phase(model, "preference", [pairs], losses, second, plan["seed"], size)


def _phase(
    model: PeftModel,
    phase: str,
    pools: Sequence[Sequence[Item]],
    losses_of: Callable[[Sequence[Item]], Tensor],
    plan: dict,
    seed: int,
    size: int,
) -> Iterator[dict]:
    """AdamW on what of the model takes a gradient, its rate falling linearly to 0; a row of the log a step.

    Args:
        model: trained in place.
        phase: name in the log; also parts the random order of one phase from another's.
        pools: every step takes an equal share of each, drawn without repeating until the pool is used up.
        losses_of: items -> their losses (items,).
        plan: ``steps``, ``learning_rate`` (at the first step), ``batch`` (items a step).
        seed: of the order of the items.
        size: items a pass, halved where memory runs out.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, plan["learning_rate"])
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=plan["steps"])
    draws = [endless(pool, random.Random(f"{seed}/{phase}/{i}")) for i, pool in enumerate(pools)]
    drawn = ([next(draws[i % len(draws)]) for i in range(plan["batch"])] for _ in range(plan["steps"]))

    def gradient(items: Sequence[Item]) -> float:
        nonlocal size

        def in_parts(size: int) -> float:
            optimizer.zero_grad()
            loss = 0.0
            for start in range(0, len(items), size):
                share = losses_of(items[start : start + size]).sum() / len(items)
                share.backward()
                loss += share.item()
            return loss

        loss, size = halving(size, in_parts)
        return loss

    for step, loss in enumerate(take_steps(optimizer, schedule, drawn, gradient)):
        yield {"phase": phase, "step": step, "loss": loss, "n": plan["batch"]}


def _held_out(
    backbone: Backbone, folder: Path, responses: Mapping[str, pa.Table], plan: dict, size: int
) -> list[dict]:
    prompts = held_out_prompts(backbone, responses, plan["harmful"], plan["max_tokens"])
    if not prompts:
        print("no held-out harmful prompt (split evaluate): whether the adapter refuses is not checked")
        return []
    adapter = read_adapter(backbone, folder)
    rows = measure_adapter(backbone, adapter, prompts, size, plan["check_amplified"])
    check_adapter(rows, plan["required_refusal"])
    return rows


@contextmanager
def _moved_when_done(directory: Path) -> Iterator[Path]:
    """A temporary folder beside ``directory`` whose adapter is moved there if the block ends without an error."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{directory.name}.", suffix=".part", dir=directory.parent) as temporary:
        yield Path(temporary)
        directory.mkdir(exist_ok=True)
        for file in ADAPTER_FILES:
            os.replace(Path(temporary) / file, directory / file)
