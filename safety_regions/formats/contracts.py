"""Every parquet contract of the project: columns, dtypes, units, meanings; read and write check them.

A table is written to a temporary name beside its place and renamed, so a killed job leaves nothing that
looks finished. The stamp (who made it, from what, with which options) lives in the file's metadata under
the key ``safety_regions`` as JSON; `read_stamp` gives it back.
"""

from typing import NamedTuple

import pyarrow as pa

from safety_regions.units.granularity import GRANULARITIES

CATEGORY = pa.dictionary(pa.int32(), pa.string())


class Column(NamedTuple):
    name: str
    type: pa.DataType
    meaning: str
    optional: bool = False  # null throughout where the data lack it


class Contract(NamedTuple):
    """One kind of table: its name, version, columns, and what one row is."""

    name: str
    version: int
    row: str
    columns: tuple[Column, ...]

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([(c.name, c.type) for c in self.columns])


def _contract(name: str, version: int, row: str, *columns: tuple) -> Contract:
    return Contract(name, version, row, tuple(Column(*c) for c in columns))


_ADDRESS = (
    ("layer", pa.int16(), "decoder block, 0-based"),
    ("projection", CATEGORY, "q k v o gate up down, split even where stored fused"),
)
_CELL = (
    ("backbone", CATEGORY, "backbone of the config"),
    ("method", CATEGORY, "label of the method in the config"),
    ("selection", CATEGORY, "{scope}-{fraction}, or range"),
    ("refinement", CATEGORY, "raw or minus-{utility dataset}"),
)
_COUNTS = (
    ("intersection", pa.int64(), "units in every region"),
    ("union", pa.int64(), "units in at least one region"),
    ("iou", pa.float64(), "intersection / union, null where the union is empty"),
    ("smallest", pa.int64(), "units of the smallest region of the combination"),
    ("largest", pa.int64(), "units of the largest region of the combination"),
    ("chance", pa.float64(), "expected intersection / expected union of independent regions of these sizes"),
)
_OVERLAP = (
    ("combination", pa.string(), "names joined by ' & ', in sorted order"),
    (
        "between",
        CATEGORY,
        "roles of the sets: identification, utility or mixed; null where names are methods",
        True,
    ),
    ("k", pa.int16(), "number of names in the combination, 2 or more"),
    ("level", CATEGORY, "model, layer or projection"),
    ("layer", pa.int16(), "decoder block where level is layer, else null"),
    ("projection", CATEGORY, "projection where level is projection, else null"),
    *_COUNTS,
    ("floor", pa.float64(), "mean IoU with shuffled evidence, null where not asked for", True),
    ("floor_low", pa.float64(), "2.5 % quantile of the IoUs behind floor", True),
    ("floor_high", pa.float64(), "97.5 % quantile of the IoUs behind floor", True),
    ("half_iou", pa.float64(), "mean IoU of first halves with first halves and second with second", True),
    (
        "ceiling",
        pa.float64(),
        "pairs: mean IoU of a set's two halves, over both sets; null where not asked for",
        True,
    ),
    (
        "normalised",
        pa.float64(),
        "(half_iou - floor) / (ceiling - floor); null where ceiling is not above floor",
        True,
    ),
)
_PAIR = (
    ("a", pa.string(), "first name"),
    ("b", pa.string(), "second name"),
    ("n_a", pa.int32(), "prompts that the region of a was found with"),
    ("n_b", pa.int32(), "prompts that the region of b was found with"),
    *_COUNTS,
)

PROMPTS = _contract(
    "prompts",
    1,
    "prompt",
    ("prompt_id", pa.string(), "unique within the study: {dataset}/{row or id of the source}"),
    ("dataset", CATEGORY, "name of the dataset"),
    ("text", pa.string(), "the prompt as the user writes it, without template"),
    ("category", pa.string(), "the source's own label, null where it has none"),
    ("split", CATEGORY, "identify or evaluate, fixed by prompt id and seed"),
    ("half", pa.int8(), "1 or 2 within the split, fixed by prompt id and seed"),
    ("response", pa.string(), "the source's own response, null where it has none"),
)
SHARED_PROMPTS = _contract(
    "shared_prompts",
    1,
    "pair of datasets",
    ("a", pa.string(), "first dataset"),
    ("b", pa.string(), "second dataset"),
    ("n_a", pa.int64(), "prompts of a"),
    ("n_b", pa.int64(), "prompts of b"),
    ("n_exact", pa.int64(), "prompts of a equal to one of b after lower() and strip()"),
    ("n_near", pa.int64(), "prompts of a with character 5-gram Jaccard > 0.7 to one of b (exact ones too)"),
    ("near_a", pa.list_(pa.string()), "prompt ids of a behind n_near"),
    ("near_b", pa.list_(pa.string()), "prompt ids of b that they match"),
)
RESPONSES = _contract(
    "responses",
    1,
    "prompt",
    ("prompt_id", pa.string(), "as in the prompts table"),
    ("dataset", CATEGORY, "name of the dataset"),
    ("split", CATEGORY, "identify or evaluate"),
    ("half", pa.int8(), "1 or 2"),
    ("prompt", pa.string(), "the prompt as the user writes it"),
    ("response", pa.string(), "text of the response, without special tokens"),
    ("origin", CATEGORY, "backbone (greedy answer) or dataset (the source's own)"),
    ("refused", pa.bool_(), "the response is a refusal by the phrase list"),
    ("n_tokens", pa.int32(), "tokens of the response"),
    ("stop", CATEGORY, "eos or length; dataset where the response is the source's own"),
)
WEIGHT_SCORES = _contract(
    "weight_scores",
    1,
    "kept weight",
    *_ADDRESS,
    ("row", pa.int32(), "output index"),
    ("column", pa.int32(), "input index"),
    ("score", pa.float32(), "the method's score, larger means more important"),
)
NEURON_SCORES = _contract(
    "neuron_scores",
    1,
    "kept neuron",
    *_ADDRESS,
    ("unit", pa.int32(), "row of q, k, v, up; column of down"),
    ("score", pa.float32(), "the method's score, larger means more important"),
    (
        "ranks",
        pa.list_(pa.int32()),
        "rank in its module for each prompt, ascending; 1 is the most important",
        True,
    ),
    (
        "importances",
        pa.list_(pa.float32()),
        "importance for each prompt, descending, in the method's unit",
        True,
    ),
)
LAYER_SCORES = _contract(
    "layer_scores",
    1,
    "layer",
    ("layer", pa.int16(), "decoder block, 0-based"),
    ("score", pa.float32(), "the method's score, larger means more important"),
    ("gap", pa.float64(), "normal_malicious - normal_normal, degrees", True),
    ("normal_normal", pa.float64(), "mean angle between two normal prompts, degrees", True),
    ("normal_malicious", pa.float64(), "mean angle between a normal and a malicious prompt, degrees", True),
    ("malicious_malicious", pa.float64(), "mean angle between two malicious prompts, degrees", True),
)
LAYER_SWEEP = _contract(
    "layer_sweep",
    1,
    "range of layers that was scaled, in the order of measuring",
    ("alpha", pa.float64(), "factor on the layers; 1 with none scaled"),
    ("bound", CATEGORY, "what it was first measured for: none, spread (of alpha), upper, lower or grid"),
    ("first_layer", pa.int16(), "0-based, null where none is scaled"),
    ("last_layer", pa.int16(), "0-based, included, null where none is scaled"),
    ("refusals", pa.int64(), "over-rejection questions refused"),
)
MEMBERSHIP = _contract(
    "membership",
    1,
    "address x pattern that occurs",
    ("layer", pa.int16(), "decoder block, null where the unit is a whole layer"),
    ("projection", CATEGORY, "projection, null where the unit is a whole layer"),
    ("pattern", pa.int32(), "bit d set: the unit is in the region of name d (order in the stamp)"),
    ("count", pa.int64(), "units that carry exactly this pattern"),
)
OVERLAP = _contract("overlap", 2, "combination of sets x level", *_OVERLAP)
IOU = _contract("iou", 2, "cell of the grid x combination x level", *_CELL, *_OVERLAP)
POOLS = _contract(
    "pools",
    1,
    "step of an order x what the pool is compared with, whole model",
    ("order", pa.int16(), "which order of the identification sets, 1-based"),
    ("k", pa.int16(), "sets in the pool a: the first k of the order"),
    (
        "against",
        CATEGORY,
        "b: next (the pool of k + 1), rest (the other sets pooled), all (every set pooled)",
    ),
    *_PAIR,
)
SAMPLE_SIZES = _contract(
    "sample_sizes",
    1,
    "pair of blocks of prompts, whole model",
    ("n", pa.int32(), "prompts asked of each set; n_a and n_b are what there was"),
    ("pair", CATEGORY, "sets (two sets, blocks of the same number) or blocks (two blocks of one set)"),
    *_PAIR,
)
RECOVERY = _contract(
    "recovery",
    1,
    "region of a method x planted truth of the same backbone, both as weights",
    ("method", CATEGORY, "label of the method in the config"),
    ("granularity", CATEGORY, "weight, neuron, layer or lora_weight"),
    ("name", pa.string(), "identification set"),
    ("selection", CATEGORY, "{scope}-{fraction}, or range"),
    ("refinement", CATEGORY, "raw or minus-{utility dataset}"),
    ("n_weights", pa.int64(), "weights of the backbone's projections"),
    ("n_truth", pa.int64(), "weights that alignment was free to change"),
    ("n_selected", pa.int64(), "weights of the region"),
    ("intersection", pa.int64(), "weights of both"),
    (
        "precision",
        pa.float64(),
        "intersection / n_selected, null where the region is empty; chance: prevalence",
    ),
    ("recall", pa.float64(), "intersection / n_truth; chance: n_selected / n_weights"),
    ("iou", pa.float64(), "intersection / union"),
    (
        "chance",
        pa.float64(),
        "expected IoU of a random region of this size, held where the region's scope holds it",
    ),
    ("prevalence", pa.float64(), "n_truth / n_weights: precision and average precision of a random score"),
    ("auroc", pa.float64(), "area under the ROC curve of the scores of all weights; null for an adapter's"),
    (
        "auroc_within",
        pa.float64(),
        "the same within each projection the truth divides, mean; null where none",
    ),
    ("average_precision", pa.float64(), "area under precision over recall of the scores of all weights"),
)
REGION_SIZES = _contract(
    "region_sizes",
    1,
    "cell of the grid x name x address",
    *_CELL,
    ("name", pa.string(), "dataset, half, pool or shuffle"),
    *_ADDRESS,
    ("n_units", pa.int64(), "units at this address"),
    ("n_selected", pa.int64(), "units in the region"),
)

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
ADAPTER_LOG = Contract(
    "adapter_log", 2, "training step, or held-out harmful prompts answered after training",
    (
        Column("phase", CATEGORY, "supervised, preference, or held-out"),
        Column("step", pa.int32(), "optimiser step of the phase, 0-based; null where held-out"),
        Column("loss", pa.float64(), "before the step: nats a token (supervised), nats a pair (preference); else null"),
        Column("n", pa.int32(), "chats or pairs of the step, or prompts answered"),
        Column("refused", pa.int32(), "held-out prompts refused; null while training"),
        Column("factor", pa.float64(), "on the product B A: 0 no adapter, 1 as trained; null while training"),
    ),
)  # fmt: skip

_SCORES = {contract.name: contract for contract in (WEIGHT_SCORES, NEURON_SCORES, LAYER_SCORES)}


def score_contract(granularity: str) -> Contract:
    """The contract of score tables of a granularity, by its name."""
    return _SCORES[GRANULARITIES[granularity].contract]
