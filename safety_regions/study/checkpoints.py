"""Facts about a backbone before it is loaded, from its card and the small files of a local checkpoint.

Torch-free, because the check of the config uses it.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from safety_regions.families import families


def shortest_row(card: dict) -> int | None:
    """Number of inputs of a backbone's narrowest projection; None if its sizes are unknown before it is loaded."""
    if "architecture" in card:
        sizes, heads = card["architecture"], "heads"
    elif "path" in card and (Path(card["path"]) / "config.json").is_file():
        sizes, heads = (
            json.loads((Path(card["path"]) / "config.json").read_text(encoding="utf-8")),
            "num_attention_heads",
        )
    else:
        return None
    widths = [sizes.get("hidden_size"), sizes.get("intermediate_size")]
    widths.append(sizes[heads] * sizes["head_dim"] if {heads, "head_dim"} <= sizes.keys() else None)
    return min(filter(None, widths), default=None)


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
