"""A table must read back as written, with its metadata; an unreadable file must give an error with a remedy."""

import pytest

from safety_regions.errors import StudyError
from safety_regions.formats.contracts import PROMPTS
from safety_regions.formats.files import REMEDY
from safety_regions.formats.parquet import iter_rows, open_table, read_metadata, read_table, write_table
from safety_regions.formats.score_file import ScoreFile
from tests.training.organisms import prompts_table

TABLE = prompts_table("bad", ["one", "two", "three"], 1)
READERS = {
    "metadata": read_metadata,
    "table": lambda path: read_table(path, PROMPTS),
    "rows": lambda path: list(iter_rows(path, PROMPTS, {"split": "identify"})),
    "file": lambda path: open_table(path, PROMPTS),
    "scores": ScoreFile,
}
CONTENTS = {"missing": None, "empty": b"", "text": b"hello", "cut": b"PAR1" + b"\0" * 40 + b"PAR1"}


def test_a_table_comes_back_with_its_metadata(tmp_path):
    write_table(tmp_path / "a.parquet", TABLE, PROMPTS, {"note": [1, 2]})
    assert read_table(tmp_path / "a.parquet", PROMPTS).equals(TABLE)
    metadata = read_metadata(tmp_path / "a.parquet")
    assert metadata == {"note": [1, 2], "schema": PROMPTS.name, "version": PROMPTS.version}


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_table_is_said_by_every_reader(tmp_path, reader, content):
    path = tmp_path / "a.parquet"
    if CONTENTS[content] is not None:
        path.write_bytes(CONTENTS[content])
    with pytest.raises(StudyError) as raised:
        READERS[reader](path)
    said = str(raised.value)
    assert said.startswith(f"{path}: found an unreadable parquet file (") and said.endswith(f"Try: {REMEDY}")


def test_a_table_of_another_kind_is_no_score_table(tmp_path):
    write_table(tmp_path / "a.parquet", TABLE, PROMPTS)
    with pytest.raises(StudyError, match="without 'granularity'"):
        ScoreFile(tmp_path / "a.parquet")
