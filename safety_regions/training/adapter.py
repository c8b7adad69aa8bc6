"""Train a backbone's reference adapter: a supervised step on safe responses, then a preference step (DPO).

1. Supervised: the backbone's own refusals of harmful prompts and its answers to ordinary ones, in equal shares.
2. Preference: for each harmful prompt, the refusal is chosen and a compliance is rejected. The model after step 1
   is the reference of DPO.
3. Check: held-out harmful prompts are answered; it is an error if the backbone with the adapter refuses too few.

Recipe and defaults of Yi et al. 2024 (NLSR, config/SFT.yaml and DPO.yaml). They merge the supervised adapter into
the model before the preference step; here both steps train one adapter on an aligned backbone. The layers come from
peft. The loop is our own, not trl's: trl tokenises texts itself, but an adapter should be trained on exactly the
tokens that scoring uses (`Backbone.encode`). The same card, responses and seed give the same bits on the same
machine.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import pyarrow as pa
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor

from safety_regions.errors import StudyError, explain
from safety_regions.formats.contracts import ADAPTER_LOG
from safety_regions.formats.files import finished_in
from safety_regions.joblog import Progress
from safety_regions.model.backbone import Backbone
from safety_regions.model.generate import pad_id
from safety_regions.model.halving import halving
from safety_regions.model.lora import read_adapter
from safety_regions.training.adapter_examples import Examples, read_examples
from safety_regions.training.adapter_losses import preference_losses, supervised_losses, with_reference
from safety_regions.training.adapter_refusals import check_adapter, held_out_prompts, measure_adapter
from safety_regions.training.loop import endless, reproducible, take_steps

Item = TypeVar("Item")


class Trained(NamedTuple):
    """The log, a table that fits `ADAPTER_LOG`, and metadata on the training data."""

    log: pa.Table
    metadata: dict


def train_adapter(
    backbone: Backbone,
    plan: dict,
    responses: Mapping[str, pa.Table],
    directory: str | Path,
    batch_size: int = 8,
) -> Trained:
    """Train an adapter and write it in peft's format; the backbone itself is not changed.

    Args:
        backbone: the model the adapter belongs to.
        plan: the key ``adapters`` of the config, with defaults filled in.
        responses: dataset -> the backbone's responses (`contracts.RESPONSES`), for all of the plan's datasets.
        directory: where weights (safetensors) and config go; files are moved there after the last step.
        batch_size: chats, pairs or prompts per pass; changes results only by rounding.

    Raises:
        StudyError: the rank is larger than a side of a layer, a dataset has no usable prompt, or the backbone with
            the adapter refuses too few of the held-out harmful prompts.
    """
    _check_rank(backbone, plan["rank"])
    examples = read_examples(backbone, responses, plan["harmful"], plan["helpful"], plan["max_tokens"])
    with finished_in(Path(directory)) as folder:
        with reproducible(plan["seed"]), adapted(backbone, plan["rank"], plan["alpha"]) as model:
            rows = list(_train(model, examples, plan, pad_id(backbone), batch_size))
            model.save_pretrained(folder, save_embedding_layers=False)
            (folder / "README.md").unlink(missing_ok=True)  # a form to fill in
        rows += _held_out(backbone, folder, responses, plan, batch_size)
    metadata = {
        "plan": plan,
        "pairs": len(examples.refusals),
        "answers": len(examples.answers),
        "skipped": examples.skipped,
    }
    return Trained(pa.Table.from_pylist(rows, schema=ADAPTER_LOG.schema), metadata)


def _check_rank(backbone: Backbone, rank: int) -> None:
    sides = {linear.slices[0].address: min(linear.module.weight.shape) for linear in backbone.linears}
    smallest = min(sides, key=sides.get)
    if rank > sides[smallest]:
        raise StudyError(
            explain(
                "adapters: rank",
                f"{rank}",
                f"at most {sides[smallest]}, the smaller side of {smallest}",
                f"`rank: {max(1, sides[smallest] // 4)}`, or another rank well below this limit",
            )
        )


@contextmanager
def adapted(backbone: Backbone, rank: int, alpha: float | None = None) -> Iterator[PeftModel]:
    """The backbone's model with a new adapter (B = 0) on all scored layers; it is removed at the end.

    Args:
        backbone: only the linear layers of its decoder blocks get the adapter.
        rank: r.
        alpha: the product B A is multiplied by alpha / r; default: 2 r.
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
    """Train the parameters that require gradients with AdamW and a linear decay to 0; yield a log row per step.

    Args:
        model: trained in place.
        phase: name in the log; also part of the random seed, so that each phase has its own order.
        pools: every step takes an equal share of each; no item of a pool repeats before all were used.
        losses_of: items -> their losses (items,).
        plan: ``steps``, ``learning_rate`` (of the first step), ``batch`` (items per step).
        seed: of the order of the items.
        size: items per pass, halved after an out-of-memory error.
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

    progress = Progress(phase, plan["steps"], "steps")
    for step, loss in enumerate(take_steps(optimizer, schedule, drawn, gradient)):
        progress.step(note=f"loss {loss:.3f}")
        yield {"phase": phase, "step": step, "loss": loss, "n": plan["batch"]}


def _held_out(
    backbone: Backbone, folder: Path, responses: Mapping[str, pa.Table], plan: dict, size: int
) -> list[dict]:
    prompts = held_out_prompts(backbone, responses, plan["harmful"], plan["max_tokens"])
    if not prompts:
        print("no held-out harmful prompt (split evaluate): the refusals of the adapter are not checked")
        return []
    adapter = read_adapter(backbone, folder)
    rows = measure_adapter(backbone, adapter, prompts, size, plan["check_amplified"])
    check_adapter(rows, plan["required_refusal"])
    return rows
