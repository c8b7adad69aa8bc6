"""Describe a study in words for its first page. Light, because the Snakefile imports it."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from safety_regions.study.config import Study
from safety_regions.study.method_shelf import method_cards
from safety_regions.study.methods import Method, Minus
from safety_regions.study.plants import group_of, place_of
from safety_regions.study.small_files import read_object
from safety_regions.units.granularity import GRANULARITIES

KEPT = {"refused": "the refused ones", "complied": "the complied ones", "all": "all, refused or not"}
CARRIED = {"refused": "refusals", "complied": "harmful answers", "all": "the responses, refused or not"}
ORIGIN = {
    "backbone": "answers of the backbone, greedy unless its card has a temperature",
    "dataset": "taken from the datasets, not from the backbone",
    "fixed": "one text for all prompts, not from the backbone: a control for the effect of the responses",
}

SUBSPACES = [
    "are subspaces of the outputs of each matrix; their IoU is the soft IoU of shared dimensions, and their size is "
    "counted in ranks",
    "have no units in common, so there is no IoU of more than two sets and no correlation of scores",
    "are no sets of weights, so they are not compared with the regions of other methods or with planted regions",
]

FLOATS = {"F64", "F32", "F16", "BF16"}
"""Types of the tensors of a GGUF file that is not quantised."""

SHARED = {
    True: "prompts that occur in two datasets are kept only in the first (by alphabet)",
    False: "prompts that occur in two datasets are kept in both",
}


def study_facts(study: Study) -> dict[str, list[str]]:
    """Term -> lines, in the order in which they are shown."""
    samples, responses = study.samples, study.responses
    return {
        "Identification sets (one region each)": [", ".join(study.identification)],
        "Utility sets (subtracted from each region)": [", ".join(study.utility) or "none"],
        "Refinements": [", ".join(study.refinements)],
        "Prompts": [
            f"up to {samples['candidates']} per dataset are answered, plus up to {samples['evaluate']} held-out ones",
            f"up to {samples['identify']} answered prompts per dataset are used to find a region: for identification "
            f"sets {KEPT[responses['keep_identification']]}, for utility sets {KEPT[responses['keep_utility']]}",
            SHARED[samples["drop_shared"]],
            *(
                ["every set is cut to the number of usable prompts of the smallest"]
                if samples["equal"]
                else []
            ),
        ],
        "Responses": [ORIGIN[responses["origin"]]],
        "Seed": [str(study.seed)],
        **_subspaces(study),
    }


def _subspaces(study: Study) -> dict[str, list[str]]:
    """What the report leaves out for methods whose regions are subspaces; empty without such methods."""
    labels = [label for label, method in study.methods.items() if method.has_subspaces]
    return {f"Regions of {', '.join(labels)}": SUBSPACES} if labels else {}


def backbone_facts(study: Study) -> dict[str, dict[str, str]]:
    """Backbone -> its ``kind``, ``title`` and ``base`` (the checkpoint before alignment), where its card names them."""
    keys = ("kind", "title", "base")
    return {name: {key: card[key] for key in keys if key in card} for name, card in study.backbones.items()}


def method_facts(study: Study) -> dict[str, dict[str, str]]:
    """Label of a method -> column -> what it is: module, title, units, selections, options, stored scores.

    What the weights carry is said of methods that are about certain responses; it follows from those that are used.
    """
    kept = study.responses["keep_identification"]
    return {
        label: {
            "method": method.module,
            "title": method_cards()[method.module]["title"],
            "units": GRANULARITIES[method.granularity].plural,
            "selections": ", ".join(method.selections),
            "options": _listed(method.options) or "none",
            "stored scores": _listed(method.kept),
            "reads prompts": "no, a baseline" if study.is_data_free(label) else "yes",
            "weights that carry": CARRIED[kept] if method_cards()[method.module]["asks_for"] else "",
            "subtracts": _minus(method),
        }
        for label, method in study.methods.items()
    }


def _listed(values: Mapping) -> str:
    return ", ".join(f"{key} {value}" for key, value in sorted(values.items()) if value is not None)


def _minus(method: Method) -> str:
    """Which utility regions are subtracted, if they are not the method's own with the same selection; else empty."""
    if method.minus == Minus():
        return ""
    whose = (
        f"the utility regions of {method.minus.method}" if method.minus.method else "its own utility regions"
    )
    return whose + (f" with selection {method.minus.selection}" if method.minus.selection else "")


def quantised_weights(files: Iterable[Path]) -> dict[str, list[str]]:
    """Term -> a line for each checkpoint that was quantised, from its `GGUF_FILE`; none if all tensors were floats."""
    found = {Path(file).parent.name: read_object(Path(file)) for file in files}
    found = {name: facts for name, facts in found.items() if facts["tensors"].keys() - FLOATS}
    lines = [
        f"{name}: the weights of {facts['source']}, dequantised "
        f"({', '.join(f'{number} {kind}' for kind, number in facts['tensors'].items())} tensors), not the original ones"
        for name, facts in found.items()
    ]
    return {"Quantised weights": lines} if lines else {}


def data_free_methods(study: Study) -> list[str]:
    """Labels of the data-free methods: their scores do not depend on the prompts."""
    return [label for label in study.methods if study.is_data_free(label)]


def base_reading_methods(study: Study) -> list[str]:
    """Labels of the methods that compare a backbone with its base: they know more than the others do."""
    return [label for label in study.methods if study.needs_base(label)]


def planted_cards(study: Study) -> dict[str, dict]:
    """Organism -> what the report says of its plant, for every organism with a planted region.

    ``family`` and ``plant`` of its card, its training ``seed``, the ``place`` of the plant in words, and the ``group``
    that it is compared within, by the group's first organism.
    """
    return {
        name: {
            **{key: study.backbones[name][key] for key in ("family", "plant")},
            "seed": study.backbones[name]["training"]["seed"],
            "place": place_of(study.backbones[name]["plant"]),
            "group": min(group_of(study, name), key=study.planted.index),
        }
        for name in study.planted
    }
