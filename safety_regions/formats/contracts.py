"""Contracts of all parquet tables in the project: columns, dtypes, units and meanings.

`safety_regions.formats.parquet` checks them when it reads or writes a table.
"""

from typing import NamedTuple

import pyarrow as pa

from safety_regions.units.granularity import GRANULARITIES

CATEGORY = pa.dictionary(pa.int32(), pa.string())


class Column(NamedTuple):
    name: str
    type: pa.DataType
    meaning: str
    optional: bool = False  # null in every row if the data do not provide it


class Contract(NamedTuple):
    """One kind of table: its name, version, columns, and the meaning of a row."""

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
    (
        "projection",
        CATEGORY,
        "q, k, v, o, gate, up or down; split even if the model stores them fused; heads if units are attention heads",
    ),
)
_CELL = (
    ("backbone", CATEGORY, "name of the backbone in the config"),
    ("method", CATEGORY, "label of the method in the config"),
    ("selection", CATEGORY, "{scope}-{fraction}, or range"),
    ("refinement", CATEGORY, "raw or minus-{utility dataset}"),
)
_COUNTS = (
    ("intersection", pa.int64(), "units in all regions; null for ranks, whose regions are subspaces"),
    ("union", pa.int64(), "units in at least one region; null for ranks"),
    (
        "iou",
        pa.float64(),
        "intersection / union, null if the union is empty; for ranks the soft IoU, d / (smallest + largest - d) with "
        "d shared dimensions",
    ),
    ("smallest", pa.int64(), "units of the smallest region of the combination"),
    ("largest", pa.int64(), "units of the largest region of the combination"),
    (
        "chance",
        pa.float64(),
        "expected IoU of independent random regions of the same sizes",
    ),
)
_SIMILARITY = (
    (
        "dimensions",
        pa.float64(),
        "ranks: shared dimensions, sum of tr(P_A P_B) over the matrices; null for other units",
        True,
    ),
    (
        "similarity",
        pa.float64(),
        "ranks: dimensions / sum of the smaller rank over the matrices (phi of Wei et al., figure 4b)",
        True,
    ),
    ("similarity_chance", pa.float64(), "expected similarity of independent random subspaces", True),
)
_OVERLAP = (
    ("combination", pa.string(), "names joined by ' & ', in sorted order"),
    (
        "between",
        CATEGORY,
        "roles of the sets: identification, utility or mixed; null if the names are methods",
        True,
    ),
    ("k", pa.int16(), "number of names in the combination, 2 or more"),
    ("level", CATEGORY, "model, layer or projection"),
    ("layer", pa.int16(), "decoder block if level is layer, else null"),
    ("projection", CATEGORY, "projection if level is projection, else null"),
    *_COUNTS,
    *_SIMILARITY,
    ("floor", pa.float64(), "permutation null: mean IoU with shuffled evidence; null if not measured", True),
    ("floor_low", pa.float64(), "lower end of the 95 % prediction interval for one more shuffle", True),
    ("floor_high", pa.float64(), "upper end of that interval", True),
    (
        "floor_marginals",
        pa.float64(),
        "mean IoU with evidence shuffled so that row and column sums are kept; null if not measured",
        True,
    ),
    ("half_floor", pa.float64(), "floor of the sets' first halves", True),
    (
        "half_iou",
        pa.float64(),
        "IoU between the sets' first halves and between their second halves, mean",
        True,
    ),
    (
        "ceiling",
        pa.float64(),
        "split-half reliability of pairs: IoU of a set's two halves, mean of both sets; null if not measured",
        True,
    ),
    (
        "normalised",
        pa.float64(),
        "(half_iou - half_floor) / (ceiling - half_floor); null if ceiling is not above half_floor",
        True,
    ),
    (
        "permuted_iou",
        pa.float64(),
        "label permutation: mean IoU of two random parts of the pooled prompts of a pair, whole model; null elsewhere",
        True,
    ),
    (
        "permuted_p",
        pa.float64(),
        "fraction of the IoUs of random parts and of the pair itself that are at most the pair's IoU",
        True,
    ),
    (
        "correlation",
        pa.float64(),
        "correlation of the sets' log scores at half the prompts, within the scope; pairs over the model only",
        True,
    ),
    (
        "reliability",
        pa.float64(),
        "geometric mean of the sets' own correlations of their halves; null if one is not above 0",
        True,
    ),
    (
        "disattenuated",
        pa.float64(),
        "correlation / reliability, independent of n; can exceed 1; null if a set hardly correlates with itself",
        True,
    ),
    (
        "disattenuated_floor",
        pa.float64(),
        "the same with shuffled evidence in the numerator: what shared weights alone give",
        True,
    ),
    (
        "normalised_ordinary",
        pa.float64(),
        "(half_iou - m) / (ceiling - m), m: mean half_iou of the mixed pairs of either set; identification pairs only",
        True,
    ),
    ("n_smallest", pa.int32(), "fewest prompts that a region of the combination was found with", True),
    ("n_largest", pa.int32(), "most prompts that a region of the combination was found with", True),
    (
        "shared",
        pa.float64(),
        "pairs: share (0-1) of the smaller set's used prompts that are, exactly or nearly, used from the other too",
        True,
    ),
)
_PAIR = (
    ("a", pa.string(), "first name"),
    ("b", pa.string(), "second name"),
    ("n_a", pa.int32(), "number of prompts used to find the region of a"),
    ("n_b", pa.int32(), "number of prompts used to find the region of b"),
    *_COUNTS,
)

PROMPTS = _contract(
    "prompts",
    1,
    "prompt",
    ("prompt_id", pa.string(), "unique within the study: {dataset}/{row or id of the source}"),
    ("dataset", CATEGORY, "name of the dataset"),
    ("text", pa.string(), "the prompt as the user writes it, without a template"),
    ("category", pa.string(), "the source's own label, null if it has none"),
    ("split", CATEGORY, "identify or evaluate, determined by prompt id and seed"),
    ("half", pa.int8(), "1 or 2 within the split, determined by prompt id and seed"),
    ("response", pa.string(), "the source's own response, null if it has none"),
)
SHARED_PROMPTS = _contract(
    "shared_prompts",
    2,
    "pair of datasets",
    ("a", pa.string(), "first dataset"),
    ("b", pa.string(), "second dataset"),
    ("n_a", pa.int64(), "number of prompts in a"),
    ("n_b", pa.int64(), "number of prompts in b"),
    ("n_exact", pa.int64(), "prompts of a equal to one of b after lower() and strip()"),
    (
        "n_near",
        pa.int64(),
        "prompts of a with character 5-gram Jaccard > 0.7 to one of b (includes exact ones)",
    ),
    ("near_a", pa.list_(pa.string()), "for each near pair of prompts, sorted: the prompt id in a"),
    ("near_b", pa.list_(pa.string()), "for each of these pairs: the prompt id in b"),
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
    (
        "origin",
        CATEGORY,
        "backbone (its own answer), dataset (the source's own response) or fixed (one text for all)",
    ),
    (
        "refused",
        pa.bool_(),
        "whether the response is a refusal according to the phrase list; null if it ends inside a thought",
        True,
    ),
    ("n_tokens", pa.int32(), "number of tokens in the response"),
    ("stop", CATEGORY, "eos or length; dataset or fixed if the backbone did not write the response"),
)
USABLE = _contract(
    "usable",
    1,
    "dataset",
    ("dataset", pa.string(), "name of the dataset"),
    ("n_usable", pa.int32(), "answered identification prompts that are not left out"),
)
WEIGHT_SCORES = _contract(
    "weight_scores",
    1,
    "weight whose score is stored",
    *_ADDRESS,
    ("row", pa.int32(), "output index"),
    ("column", pa.int32(), "input index"),
    ("score", pa.float32(), "the method's score, larger means more important"),
)
NEURON_SCORES = _contract(
    "neuron_scores",
    1,
    "neuron whose score is stored",
    *_ADDRESS,
    ("unit", pa.int32(), "row of q, k, v, up; column of down"),
    ("score", pa.float32(), "the method's score, larger means more important"),
    (
        "ranks",
        pa.list_(pa.int32()),
        "rank of the neuron in its module for each prompt, sorted ascending; 1 is the most important",
        True,
    ),
    (
        "importances",
        pa.list_(pa.float32()),
        "importance of the neuron for each prompt, sorted descending, in the method's unit",
        True,
    ),
    (
        "difference",
        pa.float64(),
        "mean activation of a feed-forward neuron for the scored prompts, minus that for ordinary prompts",
        True,
    ),
    (
        "effect",
        pa.float64(),
        "difference / pooled standard deviation over prompts (ES); 0 if that is 0",
        True,
    ),
    ("shift", pa.float64(), "difference, standardised over the neurons of the layer (SAS)", True),
    (
        "contribution",
        pa.float64(),
        "what a neuron adds to the difference of means of the residual stream, along that direction, with its sign",
        True,
    ),
)
HEAD_SCORES = _contract(
    "head_scores",
    1,
    "attention head",
    *_ADDRESS,
    ("head", pa.int32(), "query head of the layer, 0-based"),
    ("score", pa.float32(), "the method's score, larger means more important"),
    (
        "importances",
        pa.list_(pa.float32()),
        "importance of the head for each prompt, sorted descending, in the method's unit",
        True,
    ),
    (
        "contribution",
        pa.float64(),
        "what the head adds along the direction, with its sign, in the unit of the residual stream",
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
    ("normal_malicious", pa.float64(), "mean angle between a normal and a harmful prompt, degrees", True),
    ("malicious_malicious", pa.float64(), "mean angle between two harmful prompts, degrees", True),
)
RANK_SCORES = _contract(
    "rank_scores",
    1,
    "rank whose direction is stored",
    *_ADDRESS,
    ("rank", pa.int32(), "0 is the direction of the largest singular value"),
    (
        "score",
        pa.float32(),
        "singular value of the projection's outputs; 0 where the inputs have no more directions",
    ),
    (
        "direction",
        pa.list_(pa.float32()),
        "left singular vector, one number per output; its sign is arbitrary; zeros where the score is 0",
        True,
    ),
)
LAYER_SWEEP = _contract(
    "layer_sweep",
    1,
    "scaled range of layers, in the order of measurement",
    ("alpha", pa.float64(), "factor on the layers; 1 if no layer is scaled"),
    ("bound", CATEGORY, "purpose of the first measurement: none, spread (of alpha), upper, lower or grid"),
    ("first_layer", pa.int16(), "0-based, null if no layer is scaled"),
    ("last_layer", pa.int16(), "0-based, inclusive, null if no layer is scaled"),
    ("refusals", pa.int64(), "number of refused over-refusal prompts"),
)
SUBSPACES = _contract(
    "subspaces",
    1,
    "address x pair of names",
    *_ADDRESS,
    ("a", pa.string(), "first name"),
    ("b", pa.string(), "second name"),
    (
        "shared",
        pa.float64(),
        "shared dimensions: trace of the product of the two projectors, 0 to the smaller rank",
    ),
)
SPECTRUM = _contract(
    "spectrum",
    1,
    "address x eigenvalue of the mean projector on the subspaces of all sets, largest first",
    *_ADDRESS,
    ("place", pa.int32(), "0 is the largest"),
    (
        "eigenvalue",
        pa.float64(),
        "1: a direction within every subspace; 1 / k: within one of k, outside all others",
    ),
    ("chance", pa.float64(), "mean of this eigenvalue over draws of independent random subspaces"),
)
MEMBERSHIP = _contract(
    "membership",
    1,
    "address x pattern that occurs",
    ("layer", pa.int16(), "decoder block, null if units are whole layers"),
    (
        "projection",
        CATEGORY,
        "projection (heads if units are attention heads), null if units are whole layers",
    ),
    ("pattern", pa.int32(), "bit d is set if the unit is in the region of name d (order in the metadata)"),
    ("count", pa.int64(), "number of units with exactly this pattern"),
)
OVERLAP = _contract("overlap", 5, "combination of sets x level", *_OVERLAP)
IOU = _contract("iou", 5, "cell of the grid x combination x level", *_CELL, *_OVERLAP)
POOLS = _contract(
    "pools",
    2,
    "step of an order x kind of comparison, whole model",
    ("order", pa.int16(), "number of the order of the identification sets, 1-based"),
    ("k", pa.int16(), "number of sets in the pool a: the first k of the order"),
    (
        "against",
        CATEGORY,
        "what b is: next (pool of the first k + 1 sets), rest (pool of the other sets), all (pool of all sets)",
    ),
    *_PAIR,
    (
        "shuffled",
        pa.float64(),
        "permutation null: iou after the statistics of each set are shuffled by themselves; null if not measured",
        True,
    ),
    (
        "nested",
        pa.bool_(),
        "whether larger pools only lose units, because a unit must qualify for all prompts",
    ),
)
SAMPLE_SIZES = _contract(
    "sample_sizes",
    2,
    "pair of blocks of prompts, whole model",
    ("n", pa.int32(), "requested prompts per set; n_a and n_b are the available ones"),
    (
        "pair",
        CATEGORY,
        "sets (two sets, blocks with the same number), blocks (two blocks of one set), or shuffled (two sets, first "
        "blocks, the statistics of each shuffled: the floor at this n)",
    ),
    *_PAIR,
)
CORES = _contract(
    "cores",
    1,
    "kind of regions x draw x number of regions, whole model; values over all subsets of that many regions",
    (
        "kind",
        CATEGORY,
        "sets (the identification sets), shuffled (their statistics shuffled: the floor), or regrouped (the prompts of "
        "all sets in groups with the same share of every set)",
    ),
    ("draw", pa.int16(), "number of the shuffle or of the regrouping, 1-based; 0 for sets"),
    ("k", pa.int16(), "number of regions"),
    ("subsets", pa.int32(), "number of subsets of k regions"),
    ("intersection", pa.float64(), "units in all k regions, mean over subsets"),
    ("intersection_low", pa.float64(), "smallest of a subset"),
    ("intersection_high", pa.float64(), "largest of a subset"),
    ("union", pa.float64(), "units in any of the k regions, mean over subsets"),
    ("union_low", pa.float64(), "smallest of a subset"),
    ("union_high", pa.float64(), "largest of a subset"),
    ("iou", pa.float64(), "intersection / union, mean over subsets; null if all unions are empty", True),
    ("iou_low", pa.float64(), "smallest of a subset", True),
    ("iou_high", pa.float64(), "largest of a subset", True),
    (
        "retained",
        pa.float64(),
        "intersection / intersection of k - 1 regions; null for k = 1 and if that is 0",
        True,
    ),
    ("chance_intersection", pa.float64(), "intersection expected of k random regions of the same sizes"),
    ("chance_union", pa.float64(), "union expected of them"),
)
CROSSED = _contract(
    "crossed",
    1,
    "set x name with the same prompts or the same responses, whole model",
    (
        "same",
        CATEGORY,
        "what a and b have in common: prompts (b has the responses of another set) or responses",
    ),
    *_PAIR,
)
LABELS = _contract(
    "labels",
    1,
    "random split of the pooled prompts of two sets x selection x refinement, whole model",
    ("selection", CATEGORY, "{scope}-{fraction}"),
    ("refinement", CATEGORY, "raw or minus-{utility dataset}"),
    ("permutation", pa.int32(), "number of the split, 1-based"),
    ("iou", pa.float64(), "IoU of the regions of the two parts, null if their union is empty"),
)
RECOVERY = _contract(
    "recovery",
    3,
    "region of a method compared with the planted region of the same backbone or of one planted elsewhere, as weights; "
    "a region of ranks with the main directions of the change of the weights, as dimensions",
    ("truth", CATEGORY, "organism whose planted region it is: this one, or another of its group"),
    ("method", CATEGORY, "label of the method in the config"),
    ("granularity", CATEGORY, "weight, neuron, head, layer, lora_weight or rank"),
    ("name", pa.string(), "identification set"),
    ("selection", CATEGORY, "{scope}-{fraction}, or range"),
    ("refinement", CATEGORY, "raw or minus-{utility dataset}"),
    ("n_weights", pa.int64(), "number of weights in the backbone's projections; of ranks, number of ranks"),
    (
        "n_truth",
        pa.int64(),
        "number of weights in the planted region (free to change during alignment); of ranks, number of directions of "
        "the change, as many as the selection takes or as there are",
    ),
    ("n_selected", pa.int64(), "number of weights in the region; of ranks, its dimensions"),
    ("intersection", pa.int64(), "number of weights in both; null for ranks"),
    (
        "precision",
        pa.float64(),
        "intersection / n_selected, null if the region is empty; chance level: prevalence",
    ),
    ("recall", pa.float64(), "intersection / n_truth; chance level: n_selected / n_weights"),
    ("iou", pa.float64(), "intersection / union; of ranks, the soft IoU"),
    (
        "chance",
        pa.float64(),
        "expected IoU of a random region with equally many weights in every group of its scope",
    ),
    (
        "prevalence",
        pa.float64(),
        "n_truth / n_weights: precision of a random region; of ranks, the expected precision of a random subspace",
    ),
    (
        "auroc",
        pa.float64(),
        "area under the ROC curve of the scores of all weights, or of the fixed sample if not all are stored; null for "
        "scores of adapters and of ranks",
    ),
    (
        "chance_auroc",
        pa.float64(),
        "the same with scores permuted within each projection; null if whole layers are planted",
    ),
    (
        "auroc_within",
        pa.float64(),
        "mean AUROC within projections that are partly planted; null if there are none",
    ),
    ("average_precision", pa.float64(), "area under the precision-recall curve of the scores of all weights"),
    ("chance_average_precision", pa.float64(), "the same with scores permuted within each projection"),
    (
        "pooled_auroc",
        pa.float64(),
        "AUROC of scores pooled to the planted units: summed over the weights of a neuron (row of up, column of down), "
        "mean of a layer; null if weights are planted",
    ),
    ("pooled_average_precision", pa.float64(), "average precision of the pooled scores"),
    (
        "pooled_chance_auroc",
        pa.float64(),
        "pooled_auroc with scores permuted within each layer; null if whole layers are planted",
    ),
    (
        "pooled_chance_average_precision",
        pa.float64(),
        "the same for pooled_average_precision; mean of 200 draws",
    ),
)
_CHANGED = (
    (
        "operation",
        CATEGORY,
        "name of the operation; scale by 1 is the unmodified model, transplant of 0 the base model",
    ),
    ("dose", pa.float64(), "strength of the operation"),
)
_CONTROL = (
    ("control", CATEGORY, "which weights were changed: none, region, or a control"),
    (
        "of",
        CATEGORY,
        "the set whose region it is, for controls that are regions of other sets; otherwise empty",
    ),
    ("draw", pa.int32(), "number of the draw of a random control, from 1; otherwise 0"),
    ("n_weights", pa.int64(), "number of weights of the changed region"),
    ("n_changed", pa.int64(), "number of weights whose value changed"),
)
_MEASURE = ("measure", CATEGORY, "see safety_regions.units.behaviour for meanings and units")
ABLATED = _contract(
    "ablated",
    1,
    "arm (operation, dose, changed weights) x held-out prompt x measure",
    *_CHANGED,
    *_CONTROL,
    ("evaluated", CATEGORY, "dataset of the prompt"),
    ("prompt_id", pa.string(), "as in the prompts table"),
    _MEASURE,
    ("value", pa.float64(), "value of the measure for this prompt"),
)
ANSWERS = _contract(
    "answers",
    1,
    "arm (operation, dose, changed weights) whose answers are generated x held-out prompt",
    *_CHANGED,
    *_CONTROL,
    ("evaluated", CATEGORY, "dataset of the prompt"),
    ("prompt_id", pa.string(), "as in the prompts table"),
    ("answer", pa.string(), "what the changed model answered"),
)
ABLATION = _contract(
    "ablation",
    1,
    "cell of the grid x set x arm x evaluated prompts x measure",
    *_CELL,
    ("name", CATEGORY, "identification set whose region it is"),
    *_CHANGED,
    *_CONTROL,
    (
        "evaluated",
        CATEGORY,
        "dataset of the prompts, or a role: all datasets of that role (harmful, ordinary)",
    ),
    _MEASURE,
    ("value", pa.float64(), "mean over the prompts"),
    ("low", pa.float64(), "rates (refused, incoherent): lower end of Wilson's 95 % interval", True),
    ("high", pa.float64(), "upper end of that interval", True),
    ("n", pa.int32(), "number of prompts"),
)
EFFECTS = _contract(
    "effects",
    1,
    "cell of the grid x set x operation x dose x measure x evaluated prompts x control",
    *_CELL,
    ("name", CATEGORY, "identification set whose region it is; all: mean over the regions of all sets"),
    *_CHANGED,
    _MEASURE,
    (
        "evaluated",
        CATEGORY,
        "dataset of the prompts, or a role: all datasets of that role (harmful, ordinary)",
    ),
    ("against", CATEGORY, "control that the region is compared with; none: only the effect itself"),
    ("of", CATEGORY, "the set whose region the control is; otherwise empty"),
    ("n", pa.int32(), "number of prompts"),
    ("draws", pa.int32(), "number of draws of a random control; otherwise 0"),
    ("unmodified", pa.float64(), "mean over prompts before the operation"),
    ("changed", pa.float64(), "mean over prompts after it"),
    (
        "effect",
        pa.float64(),
        "changed - unmodified, paired by prompt; against random parts: of the core or private part",
    ),
    ("effect_low", pa.float64(), "lower end of the 95 % t interval over prompts", True),
    ("effect_high", pa.float64(), "upper end of that interval", True),
    ("control_effect", pa.float64(), "effect of the control; mean over its draws", True),
    ("control_low", pa.float64(), "smallest effect of a draw", True),
    ("control_high", pa.float64(), "largest effect of a draw", True),
    ("difference", pa.float64(), "effect - control_effect, paired by prompt", True),
    ("difference_low", pa.float64(), "lower end of its 95 % t interval over prompts", True),
    ("difference_high", pa.float64(), "upper end of that interval", True),
    ("p", pa.float64(), "(1 + draws with an effect at least as large in absolute value) / (1 + draws)", True),
    ("p_holm", pa.float64(), "p after Holm's adjustment over the sets of a cell", True),
)
TRANSFER = _contract(
    "transfer",
    1,
    "cell of the grid x operation x dose x measure",
    *_CELL,
    *_CHANGED,
    _MEASURE,
    ("sets", pa.int16(), "number of identification sets"),
    ("own", pa.float64(), "mean effect of a set's region on the prompts of the same set"),
    ("others", pa.float64(), "mean effect of a set's region on the prompts of other sets"),
    (
        "own_advantage",
        pa.float64(),
        "own - others after the mean of every region and of every set's prompts is subtracted",
    ),
    ("own_p", pa.float64(), "permutation p of |own_advantage|: regions are assigned to other sets"),
    ("mantel", pa.float64(), "correlation over pairs of sets between IoU and similarity of effects", True),
    ("mantel_p", pa.float64(), "Mantel test: its permutation p, two-sided", True),
)
TRANSFER_PAIRS = _contract(
    "transfer_pairs",
    1,
    "cell of the grid x operation x dose x measure x set of a region x set of prompts",
    *_CELL,
    *_CHANGED,
    _MEASURE,
    ("region_of", CATEGORY, "identification set whose region is changed"),
    ("prompts_of", CATEGORY, "identification set whose held-out prompts are measured"),
    ("effect", pa.float64(), "changed - unmodified, mean over the prompts"),
    ("iou", pa.float64(), "IoU of the regions of the two sets over the whole model; null for one set", True),
    (
        "similarity",
        pa.float64(),
        "correlation of the effects of the regions of the two sets over the prompts of all sets; null for one set",
        True,
    ),
)
CONSTRAINT = _contract(
    "constraint",
    1,
    "fine-tuned model (cell, set, plan, learning rate, seed, arm) x step x evaluated prompts x measure",
    *_CELL,
    ("name", CATEGORY, "identification set whose region it is, or the name of a region from a file"),
    ("plan", CATEGORY, "name of the fine-tuning plan in the config"),
    ("attack", CATEGORY, "what the plan teaches: ordinary, opening, comply or refuse"),
    ("learning_rate", pa.float64(), "largest learning rate"),
    ("seed", pa.int32(), "seed of the order of the chats"),
    (
        "arm",
        CATEGORY,
        "what trains: free (all), freeze (all but the region), only (the region), rewind (all; then the region is set "
        "back), or an operation and its dose (all; then it restores the model)",
    ),
    ("control", CATEGORY, "which weights are constrained or restored: none (or all), region, or a control"),
    (
        "draw",
        pa.int32(),
        "number of the draw of a random control, or of the utility set in alphabetical order, from 1; otherwise 0",
    ),
    ("step", pa.int32(), "optimiser steps taken; 0: before training"),
    ("evaluated", CATEGORY, "role of the prompts: harmful or ordinary"),
    _MEASURE,
    ("value", pa.float64(), "mean over the prompts"),
    ("n", pa.int32(), "number of prompts"),
    ("n_changed", pa.int64(), "number of weights that differ from the aligned model"),
)
REGION_SIZES = _contract(
    "region_sizes",
    1,
    "cell of the grid x name x address",
    *_CELL,
    ("name", pa.string(), "dataset, half, pool or shuffle"),
    *_ADDRESS,
    ("n_units", pa.int64(), "number of units at this address"),
    ("n_selected", pa.int64(), "number of units in the region"),
)

TRAINING_LOG = Contract(
    "training_log", 1, "training step, or dataset answered after training",
    (
        Column("phase", CATEGORY, "base, align, or held-out"),
        Column("step", pa.int32(), "optimiser step of the phase, 0-based; null if held-out"),
        Column("loss", pa.float64(), "nats per response token before the step; null if held-out"),
        Column("dataset", CATEGORY, "dataset whose held-out prompts were answered; null during training"),
        Column("role", CATEGORY, "harmful, helpful, or unseen (harmful, not trained on); null during training"),
        Column("n", pa.int32(), "prompts in the batch, or held-out prompts answered"),
        Column("refused", pa.int32(), "held-out prompts refused; null during training"),
    ),
)  # fmt: skip
ADAPTER_LOG = Contract(
    "adapter_log", 2, "training step, or held-out harmful prompts answered after training",
    (
        Column("phase", CATEGORY, "supervised, preference, or held-out"),
        Column("step", pa.int32(), "optimiser step of the phase, 0-based; null if held-out"),
        Column("loss", pa.float64(), "before the step; nats per token (supervised) or pair (preference); else null"),
        Column("n", pa.int32(), "chats or pairs in the step, or prompts answered"),
        Column("refused", pa.int32(), "held-out prompts refused; null during training"),
        Column("factor", pa.float64(), "factor on the product B A: 0 no adapter, 1 as trained; null during training"),
    ),
)  # fmt: skip

_SCORES = {
    contract.name: contract
    for contract in (WEIGHT_SCORES, NEURON_SCORES, HEAD_SCORES, LAYER_SCORES, RANK_SCORES)
}


def score_contract(granularity: str) -> Contract:
    """The contract of score tables for a granularity, given by name."""
    return _SCORES[GRANULARITIES[granularity].contract]
