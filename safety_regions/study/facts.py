"""Describe a study in words for its summary page. Light, because the Snakefile imports it."""

from collections.abc import Iterable
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
        "Backbones": [_backbone(name, card) for name, card in study.backbones.items()],
        "Methods": [
            f"{label}: {method.module}; units are {GRANULARITIES[method.granularity].plural}; "
            f"selections {', '.join(method.selections)}"
            f"{_asked(method, responses['keep_identification'])}{_minus(method)}"
            for label, method in study.methods.items()
        ],
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
    }


def _asked(method: Method, kept: str) -> str:
    """What the scored weights carry, for a method that is about certain responses; ``kept``: those that are used."""
    return f"; weights that carry {CARRIED[kept]}" if method_cards()[method.module]["asks_for"] else ""


def _minus(method: Method) -> str:
    """Which utility regions are subtracted, if they are not the method's own with the same selection."""
    if method.minus == Minus():
        return ""
    whose = f"those of {method.minus.method}" if method.minus.method else "its own"
    how = f", selection {method.minus.selection}" if method.minus.selection else ""
    return f"; the utility regions that are subtracted are {whose}{how}"


def _backbone(name: str, card: dict) -> str:
    return "; ".join(
        [
            ": ".join(filter(None, (name, card.get("title")))),
            *([f"before alignment: {card['base']}"] if "base" in card else []),
        ]
    )


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
