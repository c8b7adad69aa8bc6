"""Create small cards and files for the tests of prompts; SECRET is a prompt that no message may show."""

import csv
from pathlib import Path

import pyarrow as pa
import pytest

from safety_regions.errors import StudyError
from safety_regions.formats.contracts import PROMPTS
from safety_regions.prompts.reading import read_prompts
from safety_regions.prompts.similarity import near_pairs

SECRET = "Which wren warbles before dawn?"


def card(**parts) -> dict:
    return {"role": "identification", "title": "Birds", "licence": "MIT", **parts}


def csv_card(filter: dict | None = None, **columns) -> dict:
    """Return a card for the file ``set.csv``, whose prompt column is ``question``."""
    found = card(file={"path": "set.csv", "format": "csv"}, columns={"prompt": "question", **columns})
    return {**found, "filter": filter} if filter else found


def write_csv(folder: Path, columns: list[str], rows: list[list[str]]) -> None:
    with open(folder / "set.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])


def read(
    card: dict, data_dir: Path | None, name: str = "birds", seed: int = 0, evaluate_fraction: float = 0.2
):
    catalog_dir = data_dir or Path("nowhere")
    return read_prompts(
        name, card, data_dir=data_dir, catalog_dir=catalog_dir, seed=seed, evaluate_fraction=evaluate_fraction
    )


def by_id(table: pa.Table) -> dict[str, dict]:
    """Return the rows of a prompts table by id, where ids omit the dataset."""
    return {row["prompt_id"].partition("/")[2]: row for row in table.to_pylist()}


def prompts_table(name: str, texts: list[str]) -> pa.Table:
    rows = [
        {"prompt_id": f"{name}/{i}", "dataset": name, "text": text, "split": "identify", "half": 1}
        for i, text in enumerate(texts)
    ]
    return pa.Table.from_pylist(rows, schema=PROMPTS.schema)


def message_of(function, *arguments, **options) -> str:
    """Return the message of the StudyError that the call must raise, and check that it does not show the SECRET."""
    with pytest.raises(StudyError) as caught:
        function(*arguments, **options)
    message = str(caught.value)
    for word in ("wren", "warbles", "dawn"):
        assert word not in message.lower(), "a prompt is in the message"
    assert caught.value.__cause__ is None and (
        caught.value.__context__ is None or caught.value.__suppress_context__
    ), "the traceback would show the cause, which may contain a prompt"
    return message


def near_duplicates_within(table: pa.Table) -> int:
    """Return how many prompts of a set have a near-duplicate in the same set."""
    return len({i for pair in near_pairs(table["text"].to_pylist()) for i in pair})
