"""From a dataset's card to its prompts table: read, filter, name, check, split."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from safety_regions.errors import StudyError, explain
from safety_regions.formats.contracts import PROMPTS
from safety_regions.formats.parquet import conform
from safety_regions.prompts.filters import Numbered, filter_rows
from safety_regions.prompts.similarity import distinct_from_earlier
from safety_regions.prompts.sources import category_columns, read_source
from safety_regions.prompts.splitting import Place, split_prompts
from safety_regions.study.sources import Source, choose_source

SOURCE_ID = r"\S{1,100}"  # no white space, so that a prompt used as an id by mistake never appears in a log


class Prompt(NamedTuple):
    """One prompt before it is assigned to a split."""

    id: str
    text: str
    category: str | None
    response: str | None


def read_prompts(
    name: str, card: dict, *, data_dir: Path | None, catalog_dir: Path, seed: int, evaluate_fraction: float
) -> tuple[pa.Table, dict]:
    """Read the prompts of one dataset (`contracts.PROMPTS`), with metadata on their source.

    The table is in hashed order (see `splitting`), so "the first n identify prompts" is a prefix of the identify
    rows: a random sample with balanced halves, whatever the order of the source. ``prompt_id`` is ``{dataset}/{id}``
    with the source's own id or, if there is none, the row's number in the source before any filter (0-based, six
    digits), so filters do not change ids. White space around a prompt is removed.

    Args:
        name: the dataset's name in the study.
        card: a dataset card that is valid by its schema (safety_regions/study/schemas/dataset.schema.yaml).
        data_dir: the folder that the path of the card's ``file`` is relative to; see `study.sources`.
        catalog_dir: the catalog; embedded prompt sets are in its folder ``prompts``.
        seed: of the split.
        evaluate_fraction: fraction 0-1 of the prompts in split ``evaluate``.

    Raises:
        StudyError: the source is missing or unreadable, lacks a column, has prompts that are not text, repeats an
            id, is empty after the filters, or does not have the number of rows that the card expects. Messages
            name places, ids and counts, never a prompt.
    """
    source = choose_source(name, card, data_dir, catalog_dir)
    (_, rows), origin = read_source(source)
    kept, removed = filter_rows(source.where, list(enumerate(rows)), source.filter)
    prompts = _distinct(_compose(name, source, kept), source.filter, removed)
    _require_rows(source, len(rows), removed, len(prompts))
    places = split_prompts([prompt.id for prompt in prompts], seed, evaluate_fraction)
    metadata = {
        "dataset": name,
        "role": card["role"],
        "licence": card["licence"],
        "source": origin,
        "rows_read": len(rows),
        "removed": removed,
        "prompts": len(prompts),
        "prompts_sha256": _hash_of(prompt.text for prompt in prompts),
        "seed": seed,
        "evaluate_fraction": evaluate_fraction,
    }
    return _table(name, prompts, places), metadata


def _compose(name: str, source: Source, rows: Sequence[Numbered]) -> list[Prompt]:
    """Turn rows into prompts; check that each is text and that all ids are unique."""
    columns = source.columns
    texts = [_text(row, columns) for _, row in rows]
    keys = [_key(number, row, columns) for number, row in rows]
    labels = [f"row {number}" for number, _ in rows]
    _refuse(
        source,
        [at for at, text in zip(labels, texts, strict=True) if text is None],
        "with blank or non-text content",
        "a `filter` that drops these rows, or another `prompt` column",
    )
    _refuse(
        source,
        [at for at, key in zip(labels, keys, strict=True) if not re.fullmatch(SOURCE_ID, key)],
        "without an id, or with white space in it",
        "another `id` column, or none (row numbers)",
    )
    prompts = [
        Prompt(f"{name}/{key}", text, _category(row, columns), _response(row, columns))
        for key, text, (_, row) in zip(keys, texts, rows, strict=True)
    ]
    _refuse(
        source,
        [at for at, prompt in zip(labels, prompts, strict=True) if not _is_unicode(prompt)],
        "with half a character (a surrogate without its other half, such as a cut emoji)",
        "a file with the whole character, or a `filter` that drops these rows",
    )
    counts = Counter(keys)
    _refuse(
        source,
        [f"{name}/{key}" for key, count in counts.items() if count > 1],
        "with an id that occurs twice",
        "another `id` column, or none (row numbers)",
    )
    return prompts


def _is_unicode(prompt: Prompt) -> bool:
    """Whether all texts can be written in UTF-8. JSON may hold lone surrogates, which no file of this project can."""
    try:
        "\n".join(text for text in prompt if text is not None).encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse(source: Source, places: list[str], what: str, hint: str) -> None:
    if places:
        count = f"{len(places)} prompt{'s' if len(places) > 1 else ''}"
        shown = ", ".join(places[:10]) + (", ..." if len(places) > 10 else "")
        raise StudyError(explain(source.where, f"{count} {what} ({shown})", hint=hint))


def _key(number: int, row: dict, columns: dict) -> str:
    """The source's own id as text, empty if missing; the row number if the card names no id column."""
    if "id" not in columns:
        return f"{number:06d}"
    value = row.get(columns["id"])
    return "" if value is None else str(value).strip()


def _text(row: dict, columns: dict) -> str | None:
    """Prompt and contexts, separated by blank lines; None if the prompt is blank or a part is not text."""
    parts = [row.get(columns[key]) for key in ("context_before", "prompt", "context_after") if key in columns]
    prompt = row.get(columns["prompt"])
    if not isinstance(prompt, str) or not prompt.strip():
        return None
    if not all(isinstance(part, str) for part in parts if part is not None):
        return None
    return "\n\n".join(part.strip() for part in parts if part and part.strip())


def _category(row: dict, columns: dict) -> str | None:
    """The labels of the category columns joined by " / "; None if all are blank."""
    labels = [_label(row.get(column)) for column in category_columns(columns)]
    return " / ".join(label for label in labels if label) or None


def _label(value: Any) -> str:
    if isinstance(value, dict):  # BeaverTails has a flag for each class
        return ", ".join(sorted(key for key, flag in value.items() if flag))
    return "" if value is None else str(value).strip()


def _response(row: dict, columns: dict) -> str | None:
    response = row.get(columns["response"]) if "response" in columns else None
    return response if isinstance(response, str) and response.strip() else None


def _distinct(prompts: list[Prompt], filter: dict, removed: dict[str, int]) -> list[Prompt]:
    """Apply the card's ``distinct`` filter and record the number of removed prompts in ``removed``."""
    if "distinct" not in filter:
        return prompts
    stays = distinct_from_earlier([prompt.text for prompt in prompts], near=filter["distinct"] == "near")
    removed[f"distinct {filter['distinct']}"] = stays.count(False)
    return [prompt for prompt, stay in zip(prompts, stays, strict=True) if stay]


def _require_rows(source: Source, read: int, removed: dict[str, int], found: int) -> None:
    steps = ", ".join(f"{label} removed {count}" for label, count in removed.items()) or "no filter"
    if not found:
        raise StudyError(explain(source.where, f"no prompt left of {read} rows ({steps})", "at least one"))
    expected = source.given.get("rows", found)
    if found != expected:
        raise StudyError(
            explain(
                source.where,
                f"{found} prompts of {read} rows ({steps})",
                f"{expected}, so this is another version of the dataset",
                f"the version that the card describes, or another number at `{source.kind}: rows` in the card",
            )
        )


def _hash_of(texts: Iterable[str]) -> str:
    """A hash of the prompts that depends on their texts only, not on their source or order."""
    return hashlib.sha256(json.dumps(sorted(texts)).encode()).hexdigest()


def _table(name: str, prompts: list[Prompt], places: list[Place]) -> pa.Table:
    ordered = [prompts[place.number] for place in places]
    columns = {
        "prompt_id": [prompt.id for prompt in ordered],
        "dataset": [name] * len(ordered),
        "text": [prompt.text for prompt in ordered],
        "category": pa.array([prompt.category for prompt in ordered], pa.string()),
        "split": [place.split for place in places],
        "half": [place.half for place in places],
        "response": pa.array([prompt.response for prompt in ordered], pa.string()),
    }
    return conform(pa.table(columns), PROMPTS)
