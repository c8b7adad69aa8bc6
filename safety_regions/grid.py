"""The grid a study spans: which names, cells and files the workflow plans, and what each job depends on.

Pure functions of a `Study`; the rules put folders around what stands here.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from safety_regions.config import RAW, Study
from safety_regions.names import parse_name

# What of a backbone's card decides numbers; a title or a note does not.
LOADING = ("repo", "revision", "path", "dtype", "template", "system_prompt")
CHECKPOINT_FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
                    "tokenizer_config.json", "chat_template.jinja")  # fmt: skip


class Cell(NamedTuple):
    """One overlap of the grid: the regions of all identification sets under one selection and refinement."""

    backbone: str
    method: str
    selection: str
    refinement: str

    @property
    def path(self) -> str:
        return "/".join(self)


def cells(study: Study) -> Iterator[Cell]:
    """Every cell of the study, in address order."""
    for backbone in study.backbones:
        for label, method in study.methods.items():
            for selection in method.selections:
                for refinement in study.refinements:
                    yield Cell(backbone, label, selection, refinement)


def studied_datasets(study: Study) -> tuple[str, ...]:
    """Identification and utility datasets, in the config's order."""
    return study.identification + study.utility


def loading(card: dict) -> dict:
    """What of a backbone's card decides how it is loaded, sorted by key."""
    return {key: card[key] for key in sorted(LOADING) if card.get(key) is not None}


def local_checkpoint(card: dict) -> list[str]:
    """Files of a checkpoint in a local directory, as inputs of the jobs that load it; none for the Hub."""
    if "path" not in card:
        return []
    found = [*Path(card["path"]).glob("*.json"), *Path(card["path"]).glob("*.safetensors")]
    return sorted(str(path) for path in found)


def name_datasets(name: str) -> tuple[str, ...]:
    """Datasets that must be answered before a name can be scored."""
    return parse_name(name).datasets


def keep_of(study: Study, *names: str | None) -> dict[str, str]:
    """Which answered prompts count, for each dataset of the names."""
    return {dataset: study.keep_of(dataset) for name in names if name for dataset in name_datasets(name)}


def subtracted(refinement: str) -> str | None:
    """The utility dataset of ``minus-X``; None for raw."""
    return None if refinement == RAW else refinement.removeprefix("minus-")
