"""Ablation and constraint jobs from files: the model, its weights before alignment, regions, responses."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
from safetensors import safe_open
from torch import Tensor

from safety_regions.behaviour.ablation import Ablation, Plan, Regions
from safety_regions.behaviour.constraint import Constraint, constraint_arms
from safety_regions.behaviour.edit import all_weights, edited, fingerprint
from safety_regions.behaviour.finetune import Plan as FineTuning
from safety_regions.behaviour.finetune import plan_data
from safety_regions.behaviour.journal import Journal
from safety_regions.behaviour.judges import Judge
from safety_regions.behaviour.measures import Ruler, Value, held_out
from safety_regions.behaviour.operations import load_operation
from safety_regions.errors import StudyError, explain
from safety_regions.formats.contracts import ABLATED, ANSWERS, CONSTRAINT, Contract
from safety_regions.formats.expand import Factors
from safety_regions.formats.region import Region
from safety_regions.formats.subspaces import AnyRegion, read_any_region
from safety_regions.model.backbone import Backbone
from safety_regions.model.batches import Sample
from safety_regions.scoring.states import difference_of_means
from safety_regions.units.behaviour import DIRECTION, HARM, HARMFUL, ORDINARY, ROLES, TAUGHT


class StoredWeights(Mapping):
    """Weights by address in a safetensors file, each read when it is asked for."""

    def __init__(self, path: str | Path) -> None:
        self._file = safe_open(path, "pt")

    def __getitem__(self, where: str) -> Tensor:
        return self._file.get_tensor(where)

    def __iter__(self) -> Iterator[str]:
        return iter(self._file.keys())

    def __len__(self) -> int:
        return len(self._file.keys())


def weights_before(backbone: Backbone, files: Sequence[str | Path]) -> Mapping[str, Tensor] | None:
    """The weights before alignment: of an organism's file, or of the backbone's base; None if there are none."""
    if files:
        return StoredWeights(files[0])
    return dict(backbone.base.weights()) if backbone.base else None


def read_regions(own: str | Path, utility: Mapping[str, str], other: Mapping[str, str]) -> Regions:
    """Read the region of a job and those of other sets: name -> file."""
    named = [{name: read_any_region(path) for name, path in paths.items()} for paths in (utility, other)]
    return Regions(read_any_region(own), *named)


def ablate(
    backbone: Backbone,
    before: Mapping[str, Tensor] | None,
    regions: Regions,
    responses: Mapping[str, pa.Table],
    roles: Mapping[str, str],
    plan: Plan,
    journal: Path,
    *,
    batch_size: int,
    max_new_tokens: int,
    factors: Factors | None = None,
) -> dict[Contract, pa.Table]:
    """Run all arms of a region: tables that fit `contracts.ABLATED` and `contracts.ANSWERS`.

    Args:
        backbone: the aligned model; unchanged at the end.
        before: its weights before alignment, see `weights_before`.
        regions: see `read_regions`.
        responses: dataset -> its responses table, for all datasets whose held-out prompts are measured.
        roles: dataset -> harmful or ordinary.
        plan: operations, controls, draws.
        journal: file in which finished arms are kept until the job ends.
        batch_size, max_new_tokens: see `Ruler`.
        factors: of the LoRA adapter, for a region of its factors.
    """
    held = held_out(backbone, responses, roles)
    ruler = Ruler(backbone, held, batch_size=batch_size, max_new_tokens=max_new_tokens)
    if DIRECTION in plan.controls and backbone.family.post_norms:
        print(f"control {DIRECTION}: left out, because norms follow what is added in {backbone.family.name}")
        plan = plan._replace(controls=[kind for kind in plan.controls if kind != DIRECTION])
    given = identification(backbone, responses, roles) if DIRECTION in plan.controls else {}
    kept = Journal(journal, _identity(ruler, plan, [_key(part) for part in regions], given))
    direction = difference_of_means(backbone, given[HARMFUL], given[ORDINARY], batch_size) if given else None
    rows: dict[Contract, list[dict]] = {ABLATED: [], ANSWERS: []}
    for arm, result in Ablation(backbone, before, regions, plan, ruler, factors, direction).run(kept):
        changed = arm._asdict() | {key: result[key] for key in ("n_weights", "n_changed")}
        changed.pop("generated")
        rows[ABLATED] += [
            changed
            | {"evaluated": v.dataset, "prompt_id": v.prompt_id, "measure": v.measure, "value": v.value}
            for v in (Value(*fields) for fields in result["values"])
        ]
        rows[ANSWERS] += [
            changed | {"evaluated": h.dataset, "prompt_id": h.sample.prompt_id, "answer": answer}
            for h, answer in zip(held, result["answers"], strict=False)
        ]
    kept.remove()
    return {contract: pa.Table.from_pylist(found, contract.schema) for contract, found in rows.items()}


def identification(
    backbone: Backbone, responses: Mapping[str, pa.Table], roles: Mapping[str, str]
) -> dict[str, list[Sample]]:
    """Role -> the prompts of all datasets of that role that are not held out, refused or not, without responses.

    Raises:
        StudyError: there are none of a role.
    """
    found: dict[str, list[Sample]] = {role: [] for role in ROLES}
    for dataset, table in responses.items():
        for row in table.to_pylist():
            if row["split"] == "identify":
                ids = backbone.prompt_ids(row["prompt"])
                found[roles[dataset]].append(Sample(row["prompt_id"], ids, len(ids)))
    empty = [role for role, samples in found.items() if not samples]
    if empty:
        where = f"behaviour: controls: {DIRECTION}"
        raise StudyError(explain(where, f"no {empty[0]} prompt that is not held out", "some of both roles"))
    return found


def judge(
    judging: Judge, name: str, answers: pa.Table, responses: Mapping[str, pa.Table], roles: Mapping[str, str]
) -> pa.Table:
    """Judge the answers of all arms to harmful prompts: a table that fits `contracts.ABLATED`.

    Equal answers to the same prompt are judged once.

    Args:
        judging: the judge, and its name.
        answers: a `contracts.ANSWERS` table.
        responses: dataset -> its responses table, which has the texts of the prompts.
        roles: dataset -> harmful or ordinary.
    """
    texts = {
        (dataset, row["prompt_id"]): row["prompt"]
        for dataset, table in responses.items()
        for row in table.select(["prompt_id", "prompt"]).to_pylist()
    }
    rows = [row for row in answers.to_pylist() if roles[row["evaluated"]] == HARMFUL]
    asked = {
        (row["evaluated"], row["prompt_id"], row["answer"]): texts[row["evaluated"], row["prompt_id"]]
        for row in rows
    }
    keys = {str(number): key for number, key in enumerate(asked)}
    judged = judging.values([(number, asked[key], key[2]) for number, key in keys.items()])
    values = {keys[number]: value for number, value in judged.items()}
    found = [
        row | {"measure": HARM + name, "value": values[row["evaluated"], row["prompt_id"], row.pop("answer")]}
        for row in rows
    ]
    return pa.Table.from_pylist(found, ABLATED.schema)


def constrain(
    backbone: Backbone,
    before: Mapping[str, Tensor] | None,
    region: Region,
    utility: Sequence[Region],
    responses: Mapping[str, pa.Table],
    roles: Mapping[str, str],
    plan: Mapping,
    seed: int,
    labels: Mapping[str, str],
    journal: Path,
    *,
    batch_size: int,
    max_new_tokens: int,
) -> pa.Table:
    """Fine-tune with a region and its controls constrained: a table that fits `contracts.CONSTRAINT`.

    Args:
        backbone: the aligned model in float32; unchanged at the end. A plan whose ``start`` is ``base`` trains the
            model before alignment instead.
        before, responses, roles, batch_size, max_new_tokens: see `ablate`.
        region: at its own granularity, but not of the factors of a LoRA adapter.
        utility: the regions of utility sets, for the control of that name.
        plan: a plan of the config: ``name``, ``attack``, ``start``, ``steps``, ``batch``, ``learning_rates``,
            ``every``, ``longest``, ``arms``, ``restore``, ``controls``, ``draws``.
        seed: of the order of the chats.
        labels: backbone, method, selection, refinement, name.
        journal: file in which finished arms are kept; one for each learning rate.
    """
    role = TAUGHT[plan["attack"]]
    taught = {name: table for name, table in responses.items() if roles[name] == role}
    data = plan_data(backbone, plan["attack"], taught, plan["longest"])
    held = held_out(backbone, responses, roles)
    ruler = Ruler(backbone, held, batch_size=batch_size, max_new_tokens=max_new_tokens)
    planned = constraint_arms(region, plan["arms"], plan["controls"], plan["draws"], plan["restore"], utility)
    journals, rows = [], []
    identity = _identity(ruler, plan, seed, [_key(part) for part in (region, *utility)], data)
    with _started_from(backbone, plan["start"], before) as aligned:
        for rate in plan["learning_rates"]:
            how = FineTuning(plan["attack"], plan["steps"], plan["batch"], rate, seed)
            journals.append(Journal(journal.with_name(f"{journal.name}-{rate:g}"), f"{identity} {rate:g}"))
            job = Constraint(
                backbone, aligned, before, region, data, how, plan["every"], ruler, plan["restore"], utility
            )
            of_run = {
                **labels,
                "plan": plan["name"],
                "attack": how.attack,
                "learning_rate": rate,
                "seed": seed,
            }
            for arm, found in job.run(planned, journals[-1]):
                rows += [of_run | arm._asdict() | row for row in found]
    for kept in journals:
        kept.remove()
    return pa.Table.from_pylist(rows, schema=CONSTRAINT.schema)


@contextmanager
def _started_from(
    backbone: Backbone, start: str, before: Mapping[str, Tensor] | None
) -> Iterator[Mapping[str, Tensor] | None]:
    """Give the backbone the weights that training starts from; yield the aligned ones if they differ; put it back."""
    if start == "aligned":
        yield None
        return
    aligned = {where: weight.detach().clone() for where, weight in backbone.weights()}
    with edited(backbone, load_operation("base"), 1.0, all_weights(backbone), before):
        yield aligned


def _identity(ruler: Ruler, *parts: object) -> str:
    """What a journal belongs to: a model, the tokens of the held-out prompts, and what else determines the arms."""
    key = [fingerprint(ruler.backbone), [held[:3] for held in ruler.held], parts]
    return hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()


def _key(part: AnyRegion | Mapping[str, AnyRegion]) -> object:
    if not isinstance(part, Mapping):
        return hashlib.sha256(b"".join(map(np.ascontiguousarray, part.tensors.values()))).hexdigest()
    return {name: _key(region) for name, region in part.items()}
