"""What a study is, in words for its summary page. Light: the Snakefile imports it."""

from safety_regions.study.config import Study
from safety_regions.study.method_shelf import method_cards
from safety_regions.units.granularity import GRANULARITIES

KEPT = {"refused": "refused", "complied": "answered without refusal", "all": "answered, refused or not"}
ORIGIN = {"backbone": "the backbone's own, greedy", "dataset": "the datasets' own, not the backbone's"}

SHARED = {True: "prompts that two sets share are left out", False: "prompts that two sets share are kept"}


def study_facts(study: Study) -> dict[str, list[str]]:
    """Term -> lines, in the order they are read."""
    samples, responses = study.samples, study.responses
    return {
        "Backbones": [": ".join(filter(None, (b, card.get("title")))) for b, card in study.backbones.items()],
        "Methods": [
            f"{label}: {method.module}; units are {GRANULARITIES[method.granularity].plural}; "
            f"selections {', '.join(method.selections)}"
            for label, method in study.methods.items()
        ],
        "Identification sets, each gives a region": [", ".join(study.identification)],
        "Utility sets, subtracted from each region": [", ".join(study.utility) or "none"],
        "Refinements": [", ".join(study.refinements)],
        "Prompts": [
            f"up to {samples['candidates']} of each set are answered, and up to {samples['evaluate']} held out",
            f"a region is found with up to {samples['identify']} of the answered ones: of identification sets those "
            f"{KEPT[responses['keep_identification']]}, of utility sets those {KEPT[responses['keep_utility']]}",
            SHARED[samples["drop_shared"]],
        ],
        "Responses": [ORIGIN[responses["origin"]]],
        "Seed": [str(study.seed)],
    }


def data_free_methods(study: Study) -> list[str]:
    """Labels of the methods whose scores depend on no prompt."""
    return [label for label, method in study.methods.items() if method_cards()[method.module]["data_free"]]


def planted_cards(study: Study) -> dict[str, dict]:
    """Organism -> family and plant of its card, of every organism whose safety region was planted."""
    return {name: {key: study.backbones[name][key] for key in ("family", "plant")} for name in study.planted}
