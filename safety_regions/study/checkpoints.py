"""Facts about a backbone before it is loaded, from its card and the small files of a local checkpoint.

Torch-free, because the check of the config uses it.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from safety_regions.families import families

# What the sizes are called in an organism's card, and in the config.json of a checkpoint.
SIZES = {
    "layers": "num_hidden_layers",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
}


def unit_counts(card: dict) -> dict:
    """How many layers a backbone has, and rows and columns of its projections, as far as that is known before loading.

    Returns:
        ``layers``, an int, and every projection of `addresses.PROJECTIONS`, a pair (outputs, inputs) that is the shape
        of its weight in every layer. What the card and a local config.json do not tell is left out; of a checkpoint on
        the Hub, everything is.
    """
    sizes = _sizes(card)
    layers, hidden, neurons = (sizes.get(key) for key in ("layers", "hidden_size", "intermediate_size"))
    queries, keys = _width(sizes, "heads"), _width(sizes, "kv_heads")
    shapes = {
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
    file = Path(card["path"]) / "config.json" if "path" in card else None
    if file is None or not file.is_file():
        return {}
    config = json.loads(file.read_text(encoding="utf-8"))
    config = config.get("text_config", config)  # a model of images and text
    sizes = {key: config[name] for key, name in SIZES.items() if config.get(name) is not None}
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
    model_type = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
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
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    return "chat_template" in settings or (folder / "chat_template.jinja").is_file()
