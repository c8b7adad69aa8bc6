"""Write a model with a changed region as a checkpoint, for tools that load one: TamperBench, Inspect, lm-eval."""

import json
from collections.abc import Mapping
from pathlib import Path

from safety_regions.behaviour.edit import Weights, changeable, edited
from safety_regions.behaviour.operations import load_operation
from safety_regions.formats.expand import Factors
from safety_regions.formats.files import finished_in
from safety_regions.formats.subspaces import AnyRegion
from safety_regions.model.backbone import Backbone

CHANGED_FILE = "changed.json"


def export_model(
    backbone: Backbone,
    before: Weights | None,
    region: AnyRegion,
    operation: str,
    dose: float,
    labels: Mapping[str, str],
    directory: Path,
    factors: Factors | None = None,
) -> None:
    """Write the changed model with its tokenizer, and `CHANGED_FILE`, which says what was changed.

    Args:
        backbone: the aligned model; unchanged afterwards.
        before: its weights before alignment, see `job.weights_before`.
        region: at its own granularity.
        operation, dose: what is done to it.
        labels: backbone, method, selection, refinement, name.
        directory: its files are complete or not there.
        factors: of the LoRA adapter, for a region of its factors.
    """
    expanded = changeable(region, [operation], backbone.shapes, factors)
    with finished_in(directory) as temporary:
        with edited(backbone, load_operation(operation), dose, expanded, before) as n_changed:
            backbone.model.save_pretrained(temporary, max_shard_size="1000GB")
        backbone.tokenizer.save_pretrained(temporary)
        said = {**labels, "operation": operation, "dose": dose, "n_changed": n_changed}
        (temporary / CHANGED_FILE).write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
