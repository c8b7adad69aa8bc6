"""Facts about a backbone before it is loaded, from its card and the small files of a local checkpoint.

Torch-free, because the check of the config uses it.
"""

from collections.abc import Iterator
from pathlib import Path

from safety_regions.errors import StudyError, explain
from safety_regions.families import families
from safety_regions.study.small_files import AN_OBJECT, POINTER, fault_of, read_object
from safety_regions.units.addresses import HEADS

# What the sizes are called in an organism's card, and in the config.json of a checkpoint.
SIZES = {
    "layers": "num_hidden_layers",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
}
INDEX = "model.safetensors.index.json"
BASE_FILE = "base.safetensors"  # in the folder of an organism: its weights before alignment
GGUF_FILE = "gguf.json"
"""File of a checkpoint that was read from a GGUF file: which one, and its quantisation."""
SMALL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    INDEX,
)
"""Files of a checkpoint that hold a JSON object."""


def unit_counts(card: dict) -> dict:
    """How many layers a backbone has, and rows and columns of its projections, as far as that is known before loading.

    Returns:
        ``layers``, an int; ``heads``, of which the only element is the number of query heads of a layer; and every
        projection of `addresses.PROJECTIONS`, a pair (outputs, inputs) that is the shape of its weight in every layer.
        What the card and a local config.json do not tell is left out; of a checkpoint on the Hub, everything is.
    """
    sizes = _sizes(card)
    layers, hidden, neurons = (sizes.get(key) for key in ("layers", "hidden_size", "intermediate_size"))
    queries, keys = _width(sizes, "heads"), _width(sizes, "kv_heads")
    shapes = {
        HEADS: (sizes.get("heads"),),
        "q": (queries, hidden),
        "k": (keys, hidden),
        "v": (keys, hidden),
        "o": (hidden, queries),
        "gate": (neurons, hidden),
        "up": (neurons, hidden),
        "down": (hidden, neurons),
    }
    counts = {} if layers is None else {"layers": layers}
    return counts | {projection: shape for projection, shape in shapes.items() if None not in shape}


def _sizes(card: dict) -> dict[str, int]:
    """The sizes that are known, by their names in a card."""
    if "architecture" in card:
        return card["architecture"]
    if card.get("kind") == "organism":
        return _sizes(card.get("base_card", {}))
    file = Path(card["path"]) / "config.json" if "path" in card else None
    if file is None or not file.is_file() or fault_of(file):
        return {}
    config = read_object(file)
    config = config.get("text_config") or config  # a model of images and text
    found = {key: config.get(name) for key, name in SIZES.items()}
    sizes = {key: size for key, size in found.items() if isinstance(size, int) and size > 0}
    if {"hidden_size", "heads"} <= sizes.keys():
        even = sizes["hidden_size"] // sizes["heads"]
        sizes.setdefault("head_dim", families()[card["family"]].head_dim or even)
    return sizes


def _width(sizes: dict[str, int], heads: str) -> int | None:
    """Outputs of all heads of a kind together."""
    return sizes[heads] * sizes["head_dim"] if {heads, "head_dim"} <= sizes.keys() else None


def local_problems(card: dict) -> Iterator[tuple[str, str]]:
    """Problems of a local checkpoint that its small files reveal, as pairs (found, expected)."""
    folder = Path(card["path"])
    if not (folder / "config.json").is_file():
        yield "no config.json", "a checkpoint's directory"
        return
    faults = [fault_of(folder / name) for name in SMALL_FILES if (folder / name).is_file()]
    if any(faults):
        yield from ((fault, AN_OBJECT) for fault in faults if fault)
        return
    yield from _weight_problems(folder)
    model_type = str(read_object(folder / "config.json").get("model_type"))
    known = families()[card["family"]].layers
    if model_type not in known:
        yield f"model_type '{model_type}'", f"one of family {card['family']}: {', '.join(known)}"
    settings = folder / "tokenizer_config.json"
    if not settings.is_file():
        yield "no tokenizer_config.json", "the checkpoint's tokenizer files"
    elif card["template"] == "native" and not _has_chat_template(folder):
        yield (
            "a tokenizer without a chat template",
            "a chat template for `template: native`, or else `template: alpaca` or `template: raw` in the card",
        )


def _has_chat_template(folder: Path) -> bool:
    settings = read_object(folder / "tokenizer_config.json")
    return "chat_template" in settings or (folder / "chat_template.jinja").is_file()


def gguf_problems(gguf: dict) -> Iterator[tuple[str, str]]:
    """Problems of a local GGUF file that its first bytes reveal, as pairs (found, expected)."""
    file = Path(gguf["path"])
    if not file.is_file():
        yield "no such file", "a GGUF file"
        return
    with open(file, "rb") as opened:
        start = opened.read(len(POINTER))
    if start == POINTER:
        yield "a pointer of Git LFS", "the GGUF file itself (`git lfs pull`)"
    elif not start.startswith(b"GGUF"):
        yield "a file that is no GGUF", "a GGUF file"


def pair_problems(card: dict, base: dict) -> Iterator[tuple[str, str]]:
    """Why two cards cannot be a checkpoint and its base, as far as they and local files tell: (found, expected)."""
    if base["kind"] != "checkpoint":
        yield f"a card of kind {base['kind']}", "a card of kind checkpoint"
    if card["kind"] == "organism" and base.get("template") != "native":
        yield (
            f"with template {base.get('template')}",
            "template native, because the organism is saved with it",
        )
    if base["family"] != card["family"]:
        yield f"of family {base['family']}", f"a checkpoint of family {card['family']}"
    ours, theirs = ({**unit_counts(one), **_vocabulary(one)} for one in (card, base))
    for name in sorted(ours.keys() & theirs.keys()):
        if ours[name] != theirs[name]:
            yield f"with {name} {theirs[name]}", f"{ours[name]}, as in the backbone itself"


def _vocabulary(card: dict) -> dict[str, int]:
    """``vocab_size``, if a local config.json tells."""
    file = Path(card["path"]) / "config.json" if "path" in card else None
    known = file is not None and file.is_file() and not fault_of(file)
    config = read_object(file) if known else {}
    size = (config.get("text_config") or config).get("vocab_size")
    return {"vocab_size": size} if isinstance(size, int) else {}


def weight_files(folder: Path) -> list[str]:
    """The names of the files with a checkpoint's weights, from its index if it has one.

    Raises:
        StudyError: the index is damaged.
    """
    if not (folder / INDEX).is_file():
        return ["model.safetensors"]
    names = read_object(folder / INDEX).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise StudyError(explain(folder / INDEX, "no list of files", "a `weight_map` from tensors to files"))
    return sorted(set(names.values()))


def _weight_problems(folder: Path) -> Iterator[tuple[str, str]]:
    try:
        names = weight_files(folder)
    except StudyError:
        yield f"a damaged {INDEX}", "a `weight_map` from tensors to files"
        return
    missing = [name for name in names if not (folder / name).is_file()]
    pointers = [name for name in names if name not in missing and _is_pointer(folder / name)]
    if missing:
        yield f"no {missing[0]}", "weights in safetensors (pickled weights are never loaded)"
    if pointers:
        yield f"a pointer of Git LFS in place of {pointers[0]}", "the weights themselves (`git lfs pull`)"


def _is_pointer(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(len(POINTER)) == POINTER
