"""Check that a checkpoint and its base belong together, from their small files, before any job loads their weights."""

import json
from collections.abc import Sequence
from pathlib import Path

from safety_regions.errors import StudyError, explain
from safety_regions.model.hub import Place, fetch_small_files
from safety_regions.study.checkpoints import SIZES
from safety_regions.study.small_files import read_object

COMPARED = (*SIZES.values(), "vocab_size")


def compare_pair(card: dict, files: Sequence[str | Path], base: Sequence[str | Path], name: str) -> dict:
    """What a backbone and its base have in common.

    Args:
        card: of the backbone, with ``base_card``.
        files, base: files of the two where they are local or made by the workflow; empty for the Hub.
        name: the backbone's name, for errors.

    Returns:
        The sizes in both config.json, and ``tokens``, the number of tokens in both vocabularies.

    Raises:
        StudyError: a size differs, or a token has another id in the other vocabulary; or a failure of the Hub.
    """
    ours, theirs = _folder(card, files, name), _folder(card["base_card"], base, f"{name}: base")
    sizes = [_sizes(folder) for folder in (ours, theirs)]
    where = f"backbone {name}: base"
    for key, size in sizes[0].items():
        if sizes[1].get(key, size) != size:
            raise StudyError(explain(where, f"{key} {sizes[1][key]}", f"{size}, as in the backbone itself"))
    tokens = [_tokens(folder) for folder in (ours, theirs)]
    shared = tokens[0].keys() & tokens[1].keys()
    moved = sorted(tokens[0][token] for token in shared if tokens[0][token] != tokens[1][token])
    if moved:
        found = f"{len(moved)} tokens with other ids, e.g. that of id {moved[0]}"
        raise StudyError(
            explain(where, found, "the same vocabulary", "the base that the backbone was aligned from")
        )
    return {**sizes[0], "tokens": len(shared)}


def _folder(card: dict, files: Sequence[str | Path], where: str) -> Path:
    if files or "path" in card:
        return Path(files[0]).parent if files else Path(card["path"])
    return fetch_small_files(
        Place(f"backbone {where}", card["repo"], card.get("revision") or "main", "model")
    )


def _sizes(folder: Path) -> dict[str, int]:
    config = read_object(folder / "config.json")
    config = config.get("text_config") or config
    return {key: config[key] for key in COMPARED if isinstance(config.get(key), int)}


def _tokens(folder: Path) -> dict[str, int]:
    """Token -> id, from tokenizer.json; empty if the checkpoint has another kind of tokenizer file."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        return {}
    found = json.loads(file.read_text(encoding="utf-8"))
    vocabulary = found.get("model", {}).get("vocab", {})
    listed = isinstance(vocabulary, list)  # unigram models: [token, score], in the order of their ids
    ids = {token: number for number, (token, _) in enumerate(vocabulary)} if listed else dict(vocabulary)
    return ids | {token["content"]: token["id"] for token in found.get("added_tokens", [])}
