"""The grid of a study: the names, cells and files that the workflow plans, and what each job depends on.

Pure functions of a `Study`; the rules turn their results into paths.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from safety_regions.study.adapters import given_files
from safety_regions.study.checkpoints import GGUF_FILE
from safety_regions.study.config import RAW, Study, source_of
from safety_regions.study.file_stamps import stamp
from safety_regions.study.method_shelf import granularity_of, method_cards, own_selection
from safety_regions.units.granularity import ROW
from safety_regions.units.names import Name, parse_name
from safety_regions.units.selections import parse_selection

# Keys of a backbone's card that affect results; a title or a note does not.
LOADING = (
    "repo",
    "revision",
    "path",
    "dtype",
    "template",
    "system_prompt",
    "date",
    "template_options",
    "temperature",
)
# How a prompt is rendered: what an organism takes from the checkpoint that it starts from.
RENDERING = ("template", "system_prompt", "date", "template_options")
FOR_READERS = ("title", "note")
CHECKPOINT_FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)
# A GGUF file may have no chat template; the one it has is kept in tokenizer_config.json.
CONVERTED_FILES = (*(file for file in CHECKPOINT_FILES if file != "chat_template.jinja"), GGUF_FILE)
# The files of a local checkpoint that transformers reads: config, weights and their index, tokenizer, chat template.
LOCAL_FILES = (
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer*",
    "chat_template*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "*.model",
)


class Cell(NamedTuple):
    """One overlap in the grid: regions of all identification sets with the same selection and refinement."""

    backbone: str
    method: str
    selection: str
    refinement: str

    @property
    def path(self) -> str:
        return "/".join(self)


def cells(study: Study) -> Iterator[Cell]:
    """Every cell of the study, in address order.

    A method that always contrasts with a utility set gives all units of that set the same score, so its region cannot
    be subtracted; cells that would subtract it are left out.
    """
    for backbone in study.backbones:
        for label, method in study.methods.items():
            for selection in method.selections:
                remover, how = removed_by(study, label, selection)
                own = own_selection(study.methods[remover].module, how)
                for refinement in study.refinements:
                    if own or subtracted(refinement) not in _contrasts(study, remover):
                        yield Cell(backbone, label, selection, refinement)


def removed_by(study: Study, label: str, selection: str) -> tuple[str, str]:
    """Method (its label) and selection of the utility regions that refinements of a method's regions subtract."""
    minus = study.methods[label].minus
    return minus.method or label, minus.selection or selection


def _contrasts(study: Study, label: str) -> tuple[str, ...]:
    """The utility set without scores because the method contrasts with it: at most one."""
    always = method_cards()[study.methods[label].module]["contrast"]
    return (study.contrast_of(label),) if always else ()


def compared_utility(study: Study, label: str, refinement: str) -> list[str]:
    """Utility sets whose regions are compared with those of identification sets in cells with this refinement."""
    without = {subtracted(refinement), *_contrasts(study, label)}
    return sorted(set(study.utility) - without)


def framed_names(study: Study, label: str, selection: str, refinement: str) -> list[str]:
    """Names that the IoUs of a cell are compared with: shuffles, halves and, if there are utility sets, all sets.

    Ceilings are the IoUs of halves, so the floor beside them is that of shuffled halves. A data-free method has neither
    floor nor ceiling, because it has no statistics to shuffle and sees no prompts.
    """
    utility = compared_utility(study, label, refinement)
    sets = sorted(study.identification) + utility
    suffixes = [""] if utility else []
    if study.is_data_free(label):
        return [name + suffix for suffix in suffixes for name in sets]
    if not granularity_of(study.methods[label].module).exact_floor:
        kind, halves = shuffle_kind(selection), ["", ".1"] if study.ceilings else [""]
        suffixes += [f"{half}~{seed}{kind}" for half in halves for seed in shuffle_seeds(study)]
        if keeps_marginals(study, label):
            suffixes += [f"~{seed}m" for seed in shuffle_seeds(study)]
    if study.ceilings:
        suffixes += [".1", ".2"]
    return [name + suffix for suffix in suffixes for name in sets]


def frame_names(study: Study, label: str, selection: str, dataset: str) -> list[str]:
    """The names among `framed_names` that are halves or shuffles of a dataset; what is shuffled comes first."""
    framed = framed_names(study, label, selection, RAW)
    own = [name for name in framed if name != dataset and name_datasets(name) == (dataset,)]
    return sorted(own, key=lambda name: parse_name(name).shuffle is not None)


def scored_frame(study: Study, label: str, dataset: str) -> list[str]:
    """The names in the frame of a dataset's scores: those in the frames of its regions, whatever the selection."""
    selections = study.methods[label].selections
    return list(dict.fromkeys(name for how in selections for name in frame_names(study, label, how, dataset)))


def frames_of(study: Study, label: str, selection: str, names: Iterable[str]) -> dict[str, str]:
    """Name -> dataset whose frame holds its region, for the names whose regions have no files of their own."""
    framed = set(framed_names(study, label, selection, RAW)) - set(study.datasets)
    return {name: name_datasets(name)[0] for name in names if name in framed}


def scored_frames(study: Study, label: str, names: Iterable[str]) -> dict[str, str]:
    """Name -> dataset whose frame holds its scores, for the names whose scores have no files of their own."""
    listed = list(names)
    of_selections = (frames_of(study, label, how, listed) for how in study.methods[label].selections)
    return {name: dataset for found in of_selections for name, dataset in found.items()}


def framing(study: Study, label: str, selection: str, refinement: str) -> dict:
    """What the IoUs of a cell are framed with: the arguments of `overlap.frame.Frame` that the config determines."""
    seen = not study.is_data_free(label)
    return {
        "utility": compared_utility(study, label, refinement),
        "floors": study.floors if seen else 0,
        "kind": shuffle_kind(selection),
        "marginals": seen and keeps_marginals(study, label),
        "halves": study.ceilings and seen,
        "contiguous": refinement == RAW and is_contiguous(study, label, selection),
    }


def correlated_names(study: Study, label: str, selection: str, refinement: str) -> list[str]:
    """Names among `framed_names` whose sampled scores are correlated: halves and their shuffles, if there are ceilings.

    Whole layers and ranks have no sample of scores.
    """
    kind = granularity_of(study.methods[label].module)
    if not study.ceilings or study.is_data_free(label) or kind.whole_layers or kind.subspaces:
        return []
    framed = framed_names(study, label, selection, refinement)
    return [name for name in framed if parse_name(name).parts[0].half]


def uncorrelated_regions(study: Study, label: str, selection: str, refinement: str) -> list[str]:
    """The utility set whose units a refined cell leaves out of its correlations: at most one."""
    name = subtracted(refinement)
    return [name] if name and correlated_names(study, label, selection, refinement) else []


def has_subspaces(study: Study, label: str) -> bool:
    """Whether the regions of a method (by its label) are subspaces."""
    return study.methods[label].has_subspaces


def counted_as(study: Study, label: str) -> str:
    """What the table that the overlaps of a cell are computed from is called, by the method's label."""
    return "subspaces" if has_subspaces(study, label) else "membership"


def compared_methods(study: Study) -> list[str]:
    """Labels of the methods that are compared with each other as weights, sorted; none if the config asks for none."""
    asked = study.methods if study.compare_methods else ()
    return sorted(label for label in asked if not has_subspaces(study, label))


def shuffle_kind(selection: str) -> str:
    """The kind of shuffle (`names.SHUFFLES`) within the scope in which a selection ranks units."""
    ranked = parse_selection(selection)
    return "r" if ranked and ranked.scope == ROW else ""


def keeps_marginals(study: Study, label: str) -> bool:
    """Whether a method (by its label) has a second floor, with row and column sums kept."""
    return bool(study.floors) and method_cards()[study.methods[label].module]["per_weight"]


def unshuffled(study: Study, label: str, selection: str, name: str) -> list[str]:
    """The name without its shuffle, for a shuffle of which a method's selection takes the best scores, or nothing."""
    parsed, own = parse_name(name), own_selection(study.methods[label].module, selection)
    by_score = parse_selection(selection) is not None or (own is not None and own["by_score"])
    return [str(Name(parsed.parts))] if parsed.shuffle is not None and by_score else []


def own_patterns(study: Study) -> str:
    """A regular expression of the selections that the study's methods make themselves; matches nothing if none do."""
    cards = (method_cards()[name] for name in sorted({method.module for method in study.methods.values()}))
    return "|".join(own["pattern"] for card in cards for own in card["own_selections"].values()) or "(?!)"


def is_contiguous(study: Study, label: str, selection: str) -> bool:
    """Whether a selection of a method is always a contiguous range of layers."""
    own = own_selection(study.methods[label].module, selection)
    return own is not None and own["contiguous"]


def shuffle_seeds(study: Study) -> range:
    """Seeds of the evidence shuffles in the study."""
    return range(1, study.floors + 1)


def scored_methods(study: Study) -> list[dict[str, str]]:
    """Method and name of every score table that is compared with a backbone's planted region."""
    return [
        {"method": label, "name": name} for label in study.methods for name in sorted(study.identification)
    ]


def recovered_ranks(study: Study) -> float | None:
    """Largest fraction of the ranks of a projection that a region has; None if no method selects ranks."""
    fractions = [
        parse_selection(cell.selection).fraction for cell in cells(study) if has_subspaces(study, cell.method)
    ]
    return max(fractions, default=None)


def sampled_scores(study: Study) -> list[dict[str, str]]:
    """Those of `scored_methods` whose tables do not store the scores of all weights, but have a sample of them."""
    return [
        row
        for row in scored_methods(study)
        if study.methods[row["method"]].granularity == "weight"
        and max(study.methods[row["method"]].kept.values()) < 1
    ]


def recovered_regions(study: Study) -> list[dict[str, str]]:
    """Method, granularity, name, selection and refinement of every region that is compared with a planted region."""
    backbone = next(iter(study.backbones))
    return [
        {
            "method": cell.method,
            "granularity": study.methods[cell.method].granularity,
            "name": name,
            "selection": cell.selection,
            "refinement": cell.refinement,
        }
        for cell in cells(study)
        if cell.backbone == backbone
        for name in sorted(study.identification)
    ]


def removed_regions(study: Study) -> list[dict[str, str]]:
    """Method, selection and name of every raw region that a region of `recovered_regions` is refined by."""
    refined = (
        (row["method"], row["selection"], subtracted(row["refinement"])) for row in recovered_regions(study)
    )
    found = dict.fromkeys(row for row in refined if row[-1])
    return [dict(zip(("method", "selection", "name"), row, strict=True)) for row in found]


def studied_datasets(study: Study) -> tuple[str, ...]:
    """Identification and utility datasets, in the config's order."""
    return study.identification + study.utility


def loading(card: dict) -> dict:
    """The keys of a card that determine how a backbone is loaded, sorted, and a stamp of the files in its ``path``."""
    if card.get("kind") == "organism" and "base_card" in card:
        card = {key: card["base_card"].get(key) for key in RENDERING} | card
    kept = {key: card[key] for key in sorted(LOADING) if card.get(key) is not None}
    return kept | ({"stamp": stamp(local_checkpoint(card))} if "path" in card else {})


def scoring(study: Study, backbone: str, label: str) -> dict:
    """`loading` of a backbone for a method (by its label), and of its base if the method compares the two.

    Also a stamp of the adapter that is given for it.
    """
    card, given = study.backbones[backbone], []
    if study.needs_adapter(label):
        given = given_files(study.adapters, backbone)
    base = paired(card) if reads_base(study, backbone, label).checkpoint else {}
    return loading(card) | base | ({"adapter_stamp": stamp(given)} if given else {})


class Base(NamedTuple):
    """What a job reads a backbone's base from: a checkpoint, an organism's own file, or nothing."""

    checkpoint: bool
    own: bool


def reads_base(study: Study, backbone: str, label: str) -> Base:
    """Where the base comes from that a method (by its label) compares a backbone with."""
    needed, named = study.needs_base(label), "base_card" in study.backbones[backbone]
    return Base(needed and named, needed and not named)


def paired(card: dict) -> dict:
    """`loading` of a backbone whose card names a base, and of the base, as ``base_card``."""
    return loading(card) | {"base_card": loading(card["base_card"])}


def reading(study: Study, dataset: str) -> dict:
    """What a dataset is read by: a card with no other keys and no other source, and the study's ``data_dir``.

    The card has a stamp of the dataset's file, unless it comes from the Hub.

    A title, a note, a source that is not read, or a ``data_dir`` that the dataset does not use is no part of it.
    """
    card = study.datasets[dataset]
    source = source_of(dataset, card, study.data_dir)
    kept = {"licence": card["licence"], "role": card["role"], source.kind: source.given}
    kept |= {"columns": source.columns, "filter": source.filter}
    kept |= {} if source.path is None else {"stamp": stamp([source.path])}
    return {"card": ordered(kept), "data_dir": study.data_dir if source.kind == "file" else None}


def training(card: dict) -> dict:
    """What an organism is trained by: its card without the keys that are for readers, and `loading` of its base."""
    kept = {key: value for key, value in card.items() if key not in (*FOR_READERS, "base_card")}
    return ordered(kept | ({"base_card": loading(card["base_card"])} if "base_card" in card else {}))


def ordered(card: object) -> object:
    """The card with its keys in alphabetical order at every level, so that their order in a file changes nothing."""
    if isinstance(card, dict):
        return {key: ordered(card[key]) for key in sorted(card)}
    return [ordered(item) for item in card] if isinstance(card, list) else card


def converting(card: dict) -> dict:
    """What a GGUF file is converted by: `loading` of the card, its key ``gguf``, and a stamp of a local file."""
    gguf = ordered(card["gguf"])
    gguf |= {"stamp": stamp([gguf["path"]])} if "path" in gguf else {}
    return loading(card) | {"gguf": gguf}


def local_checkpoint(card: dict) -> list[str]:
    """Files of a local checkpoint that loading reads, as inputs of the jobs that load it; an empty list for the Hub."""
    if "path" not in card:
        return []
    folder = Path(card["path"])
    return sorted({str(path) for pattern in LOCAL_FILES for path in folder.glob(pattern)})


def name_datasets(name: str) -> tuple[str, ...]:
    """Datasets that must be answered before a name can be scored."""
    return parse_name(name).datasets


def up_to(study: Study, dataset: str) -> list[str]:
    """The dataset and all studied datasets before it in the alphabet, which keep the prompts they share with it."""
    return sorted({name for name in studied_datasets(study) if name < dataset} | {dataset})


def keep_of(study: Study, *names: str | None) -> dict[str, str]:
    """Dataset -> which of its prompts are used (refused, complied or all), for every dataset in the names."""
    return {dataset: study.keep_of(dataset) for name in names if name for dataset in name_datasets(name)}


def subtracted(refinement: str) -> str | None:
    """The utility dataset of ``minus-X``; None for raw."""
    return None if refinement == RAW else refinement.removeprefix("minus-")
