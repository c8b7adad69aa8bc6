"""Every loader must return what was written, and must locate an error in a file without quoting it."""

import bz2
import csv
import gzip
import io
import json
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety_regions.prompts.rows import FORMATS, Layout, read_rows
from safety_regions.study.sources import DELIMITERS
from tests.prompts.cards import SECRET, message_of

BOM = b"\xef\xbb\xbf"
# Any text except lone surrogates, which UTF-8 cannot encode, and NUL, which CSV cannot hold.
cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
lines = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\ufeff")).filter(str.strip)


def put(tmp_path, content: bytes | str):
    path = tmp_path / "set"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@given(
    rows=st.lists(st.lists(cells, min_size=2, max_size=2), max_size=5),
    bom=st.booleans(),
    ending=st.sampled_from(["\n", "\r\n"]),
)
def test_csv_gives_back_the_cells_that_were_written(tmp_path_factory, rows, bom, ending):
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator=ending).writerows([["question", "kind"], *rows])
    path = put(tmp_path_factory.mktemp("csv"), (BOM if bom else b"") + text.getvalue().encode())
    found = read_rows(path, "csv")
    assert found.columns == ["question", "kind"]
    assert [list(row.values()) for row in found.rows] == rows


def test_csv_cells_are_not_guessed_at(tmp_path):
    path = put(tmp_path, "question,kind\nNA,1\nnull,007\n")
    assert [list(row.values()) for row in read_rows(path, "csv").rows] == [["NA", "1"], ["null", "007"]]


def test_csv_without_a_header_row(tmp_path):
    path = put(tmp_path, 'one\n"a ""quoted"" word"\n')
    assert read_rows(path, "csv", Layout(header=["question"])).rows == [
        {"question": "one"},
        {"question": 'a "quoted" word'},
    ]


@given(texts=st.lists(lines, max_size=5), ending=st.sampled_from(["\n", "\r\n", "\n\n"]), bom=st.booleans())
def test_text_gives_one_row_per_line(tmp_path_factory, texts, ending, bom):
    # Only line feeds end a line; separators such as U+2028 do not.
    path = put(tmp_path_factory.mktemp("text"), (BOM if bom else b"") + ending.join(texts).encode())
    assert [row["question"] for row in read_rows(path, "text", Layout(header=["question"])).rows] == texts


@given(
    rows=st.lists(st.fixed_dictionaries({"question": cells, "n": st.integers()}), max_size=5),
    bom=st.booleans(),
)
def test_json_and_jsonl_give_the_same_rows(tmp_path_factory, rows, bom):
    folder, head = tmp_path_factory.mktemp("json"), BOM if bom else b""
    whole = put(folder, head + json.dumps(rows, ensure_ascii=False).encode())
    assert read_rows(whole, "json").rows == rows
    each = put(folder, head + "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode())
    assert read_rows(each, "jsonl").rows == rows


def test_columns_of_json_are_those_of_all_rows(tmp_path):
    path = put(tmp_path, '{"question": "one"}\n{"question": "two", "kind": "b"}\n')
    assert read_rows(path, "jsonl").columns == ["question", "kind"]


@given(st.data())
def test_nested_json_of_any_depth_is_its_leaves_under_their_keys(tmp_path_factory, data):
    depth = data.draw(st.integers(0, 3))
    tree = st.lists(cells, max_size=3)
    for _ in range(depth):
        tree = st.dictionaries(cells, tree, max_size=3)
    tree = data.draw(tree)
    header = [f"level {i}" for i in range(depth)] + ["question"]
    path = put(tmp_path_factory.mktemp("nested"), json.dumps(tree))
    found = read_rows(path, "nested-json", Layout(header=header))

    def leaves(node, keys=()):
        if isinstance(node, list):
            return [(*keys, leaf) for leaf in node]
        return [leaf for key, child in node.items() for leaf in leaves(child, (*keys, key))]

    assert found.columns == header
    assert [tuple(row.values()) for row in found.rows] == leaves(tree)


def test_parquet_rows(tmp_path):
    rows = [{"question": "one", "kind": None}, {"question": "two", "kind": "b"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "set")
    assert read_rows(tmp_path / "set", "parquet") == (["question", "kind"], rows)


HARD = {
    "a date after the year 9999": pa.array([2**40, 0], pa.timestamp("s")),
    "an unknown time zone": pa.array([0, 0], pa.timestamp("us", tz="Mars/Phobos")),
}


@pytest.mark.parametrize("values", HARD.values(), ids=list(HARD))
def test_parquet_columns_that_python_cannot_hold_matter_only_if_the_card_names_them(tmp_path, values):
    texts = ["one", SECRET]
    table = pa.table({"question": texts, "when": values, "when.exactly": texts})
    pq.write_table(table, tmp_path / "set")
    found = read_rows(tmp_path / "set", "parquet", Layout(needed=["when.exactly", "question", "gone"]))
    assert found.columns == ["question", "when", "when.exactly"]
    assert found.rows == [{"question": text, "when.exactly": text} for text in texts]
    message = message_of(read_rows, tmp_path / "set", "parquet", Layout(needed=["question", "when"]))
    assert "column when: found values of type timestamp" in message


def test_a_csv_cell_may_be_long(tmp_path):
    rows = [["one", "x" * 140_000], ["two", "y"]]
    path = put(tmp_path, "question,kind\n" + "".join(f"{a},{b}\n" for a, b in rows))
    assert [list(row.values()) for row in read_rows(path, "csv").rows] == rows


@given(
    rows=st.lists(st.lists(cells, min_size=2, max_size=2), max_size=4),
    delimiter=st.sampled_from(DELIMITERS),
    said=st.booleans(),
)
def test_csv_with_any_delimiter_said_by_the_card_or_the_file(tmp_path_factory, rows, delimiter, said):
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows([["question", "kind"], *rows])
    first = f"sep={delimiter}\r\n" if said else ""
    path = put(tmp_path_factory.mktemp("csv"), BOM + (first + text.getvalue()).encode())
    found = read_rows(path, "csv", Layout(delimiter=None if said else delimiter))
    assert found.columns == ["question", "kind"]
    assert [list(row.values()) for row in found.rows] == rows


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_another_delimiter_is_named_before_the_rows_seem_broken(tmp_path, mark):
    text = f'question{mark}kind\n"{SECRET}, {SECRET}"{mark}a\n{SECRET}, {SECRET}{mark}b\n'
    says = f'found cells separated by {json.dumps(mark)}; expected cells separated by ","'
    assert says in message_of(read_rows, put(tmp_path, text), "csv", Layout(needed=["question"]))
    without = put(tmp_path, text.partition("\n")[2])
    assert says in message_of(read_rows, without, "csv", Layout(header=["question", "kind"]))
    assert read_rows(put(tmp_path, text), "csv", Layout(delimiter=mark, needed=["kind"])).columns == [
        "question",
        "kind",
    ]


def test_lines_are_counted_from_the_start_of_the_file(tmp_path):
    path = put(tmp_path, f"sep=;\nquestion;kind\n{SECRET};a\n{SECRET}\n")
    assert "line 4: found a row of 1 cells; expected 2" in message_of(read_rows, path, "csv")


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize("format", sorted(FORMATS))
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (POINTER, "found a Git LFS pointer instead of the data; expected a file of format {}. Try: `git lfs pull`"),
        (BOM + POINTER, "a Git LFS pointer"),
        (gzip.compress(SECRET.encode()), "a file compressed with gzip; expected a file of format {}"),
        (bz2.compress(SECRET.encode()), "a file compressed with bzip2"),
        (lzma.compress(SECRET.encode()), "a file compressed with xz"),
        (f"\n<!DOCTYPE html><p>{SECRET}".encode(), "a web page"),
    ],
    ids=["pointer", "pointer-bom", "gzip", "bzip2", "xz", "html"],
)  # fmt: skip
def test_a_file_that_is_not_the_data_is_refused_in_every_format_and_encoding(tmp_path, format, content, says):
    path = put(tmp_path, content)
    assert says.format(format) in message_of(read_rows, path, format, Layout("latin-1", ["question"]))


@pytest.mark.parametrize(
    "text", ["version 2 of the html page", "BZhang asks", "PK or not", "<html> is what?"]
)
def test_prompts_that_begin_like_another_file_are_read(tmp_path, text):
    path = put(tmp_path, text + "\n")
    assert read_rows(path, "text").rows == [{"text": text}]


def test_a_parquet_file_is_refused_as_any_other_format(tmp_path):
    pq.write_table(pa.table({"question": [SECRET]}), tmp_path / "set")
    assert "Try: `format: parquet`" in message_of(read_rows, tmp_path / "set", "text", Layout("latin-1"))


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-8-sig"])
def test_other_encodings(tmp_path, encoding):
    path = put(tmp_path, "question\ncafé\n".encode(encoding))
    assert read_rows(path, "csv", Layout(encoding)).rows == [{"question": "café"}]


@pytest.mark.parametrize(
    ("format", "content", "says"),
    [
        ("csv", f'question,kind\n{SECRET},a\n"{SECRET},b\n{SECRET},c\n', "line 4: found broken CSV after 2 rows"),
        ("csv", f'question,kind\n{SECRET},"a"{SECRET}\n', "line 2: found broken CSV after 1 rows"),
        ("csv", f"question,kind\n{SECRET},a\n{SECRET},\n{SECRET}\n", "line 4: found a row of 1 cells; expected 2"),
        ("csv", f"question,kind\n{SECRET},a, b\n", "line 2: found a row of 3 cells; expected 2"),
        ("csv", f"{SECRET},kind,{SECRET}\n1,2,3\n", "repeated column names (columns 3)"),
        ("csv", "", "an empty file; expected a header row"),
        ("json", f'[{{"question": "{SECRET}"}},\n{{"question": {SECRET}]', "broken JSON (line 2, column 14)"),
        ("json", f'[{{"question": "{SECRET}"}}, "{SECRET}"]', "row 1: found a JSON string; expected a JSON object"),
        ("json", f'["{SECRET}", {{"question": "{SECRET}"}}]', "row 1: found a JSON object; expected a JSON string"),
        ("json", f'{{"{SECRET}": ["{SECRET}"]}}', "a JSON object; expected a list of objects or of strings"),
        ("json", f'[{{"{SECRET}": 1, "{SECRET}": 2}}]', "one key twice"),
        ("json", "[" * 100_000, "unreadable JSON (RecursionError)"),
        ("jsonl", f'{{"question": "{SECRET}"}}\n\n{{"question": \n', "line 3: found broken JSON"),
        ("jsonl", f'{{"question": "{SECRET}"}}\n["{SECRET}"]\n', "line 2: found a JSON list"),
        ("nested-json", f'{{"a": ["{SECRET}"], "a": ["{SECRET}"]}}', "one key twice"),
        ("nested-json", f'{{"a": {{"{SECRET}": ["{SECRET}"]}}}}', "level 2: found a JSON object; expected a JSON list"),
        ("nested-json", f'{{"a": ["{SECRET}"], "b": "{SECRET}"}}', "level 2: found a JSON string"),
        ("parquet", f"PAR1{SECRET}PAR1", "an unreadable parquet file"),
        ("parquet", "", "an unreadable parquet file"),
    ],
)  # fmt: skip
def test_a_broken_file_is_located_not_quoted(tmp_path, format, content, says):
    path = put(tmp_path, content)
    header = ["kind", "question"] if format == "nested-json" else None
    message = message_of(read_rows, path, format, Layout(header=header))
    assert says in message and str(path) in message


@pytest.mark.parametrize("format", sorted(set(FORMATS) - {"parquet"}))
def test_undecodable_bytes_are_located_not_quoted(tmp_path, format):
    path = put(tmp_path, f"{SECRET}\n{SECRET} caf".encode() + b"\xe9 now\n")
    assert f"not utf-8 at line 2 (byte {2 * len(SECRET) + 5})" in message_of(read_rows, path, format)


@pytest.mark.parametrize("codec", ["klingon", "hex"])
def test_unknown_codec_format_and_file(tmp_path, codec):
    path = put(tmp_path, "question\n")
    assert f"encoding '{codec}'" in message_of(read_rows, path, "csv", Layout(codec))
    assert "Did you mean 'json'" in message_of(read_rows, path, "jsn")
    assert "no such file" in message_of(read_rows, tmp_path / "gone", "csv")
