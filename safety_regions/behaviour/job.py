"""An ablation job from files: the model, its weights before alignment, regions, responses."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
from safetensors import safe_open
from torch import Tensor

from safety_regions.behaviour.ablation import Ablation, Journal, Plan, Regions
from safety_regions.behaviour.edit import fingerprint
from safety_regions.behaviour.measures import Ruler, held_out
from safety_regions.formats.contracts import ABLATED
from safety_regions.formats.expand import Factors
from safety_regions.formats.region import Region, read_region
from safety_regions.model.backbone import Backbone


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
    named = [{name: read_region(path) for name, path in paths.items()} for paths in (utility, other)]
    return Regions(read_region(own), *named)


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
) -> pa.Table:
    """Run all arms of a region: a table that fits `contracts.ABLATED`.

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
    ruler = Ruler(
        backbone, held_out(backbone, responses, roles), batch_size=batch_size, max_new_tokens=max_new_tokens
    )
    # The journal belongs to a model, a region and a plan; held-out prompts are identified by their tokens.
    key = [plan, fingerprint(backbone), [_key(part) for part in regions], [h[:3] for h in ruler.held]]
    name = hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()
    kept, rows = Journal(journal, name), []
    for arm, result in Ablation(backbone, before, regions, plan, ruler, factors).run(kept):
        changed = arm._asdict() | {key: result[key] for key in ("n_weights", "n_changed")}
        changed.pop("generated")
        rows += [
            changed
            | {"evaluated": v.dataset, "prompt_id": v.prompt_id, "measure": v.measure, "value": v.value}
            for v in result["values"]
        ]
    kept.remove()
    return pa.Table.from_pylist(rows, schema=ABLATED.schema)


def _key(part: Region | Mapping[str, Region]) -> object:
    if isinstance(part, Region):
        return hashlib.sha256(b"".join(part.masks.values())).hexdigest()
    return {name: _key(region) for name, region in part.items()}
