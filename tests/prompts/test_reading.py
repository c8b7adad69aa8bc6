"""A card must give a table with the right source, rows and ids, and every error in a source must be explained."""

import json

import pytest

from safety_regions.formats.contracts import PROMPTS
from safety_regions.formats.parquet import read_metadata, read_table, write_table
from safety_regions.prompts.rows import Rows
from tests.prompts.cards import SECRET, by_id, card, csv_card, message_of, read, write_csv


def test_the_table_is_one_of_the_contract_with_its_metadata(tmp_path):
    write_csv(tmp_path, ["question", "kind", "reply"], [[f"question {i}", "k", "yes"] for i in range(10)])
    table, metadata = read(csv_card(category="kind", response="reply"), tmp_path)
    write_table(tmp_path / "out.parquet", table, PROMPTS, metadata)
    assert read_table(tmp_path / "out.parquet", PROMPTS).equals(table)
    assert json.loads(json.dumps(metadata)).items() <= read_metadata(tmp_path / "out.parquet").items()
    assert table["dataset"].unique().to_pylist() == ["birds"]
    assert by_id(table)["000003"] | {"split": "", "half": 0} == {
        "prompt_id": "birds/000003", "dataset": "birds", "text": "question 3", "category": "k",
        "split": "", "half": 0, "response": "yes",
    }  # fmt: skip


def test_the_first_n_identify_prompts_stay_the_first_when_rows_are_added(tmp_path):
    def identify(n_rows):
        write_csv(tmp_path, ["question"], [[f"question {i}"] for i in range(n_rows)])
        table, _ = read(csv_card(), tmp_path, evaluate_fraction=0)
        return table["prompt_id"].to_pylist()

    before, after = identify(30), identify(40)
    assert [prompt_id for prompt_id in after if prompt_id in set(before)] == before
    assert before != sorted(before)


def test_contexts_join_the_prompt_where_they_are(tmp_path):
    rows = [["ask", "", ""], [" ask ", "long\nstory\n", ""], ["ask", "", "data"], ["ask", "story", "data"]]
    write_csv(tmp_path, ["question", "story", "data"], rows)
    table, _ = read(csv_card(context_before="story", context_after="data"), tmp_path)
    texts = [row["text"] for _, row in sorted(by_id(table).items())]
    assert texts == ["ask", "long\nstory\n\nask", "ask\n\ndata", "story\n\nask\n\ndata"]


def test_categories_and_responses_may_be_missing_in_a_row(tmp_path):
    write_csv(
        tmp_path,
        ["question", "area", "harm", "reply"],
        [["a", "x", "y", "z"], ["b", "", " y", ""], ["c", "", "", " "]],
    )
    found = by_id(read(csv_card(category=["area", "harm"], response="reply"), tmp_path)[0])
    assert {key: (row["category"], row["response"]) for key, row in found.items()} == {
        "000000": ("x / y", "z"), "000001": ("y", None), "000002": (None, None),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("filter", "kept", "removed"),
    [
        ({"keep": {"kind": ["a"]}}, [0, 1, 3], {"keep kind": 2}),
        ({"keep": {"kind": ["a", "b"]}}, [0, 1, 2, 3], {"keep kind": 1}),
        ({"drop": {"kind": ["a"]}}, [2, 4], {"drop kind": 3}),
        ({"keep": {"kind": ["a", "c"]}, "drop": {"n": ["1", "2"]}}, [3, 4], {"keep kind": 1, "drop n": 2}),
        ({"distinct": "exact"}, [0, 2, 3, 4], {"distinct exact": 1}),
        ({"distinct": "near"}, [0, 2, 4], {"distinct near": 2}),
        ({"keep": {"kind": ["b", "a"]}, "distinct": "near"}, [0, 2], {"keep kind": 1, "distinct near": 2}),
        (
            {"drop_matching": {"columns": ["question", "n"], "phrases": ["In the MORNING sky", "9"]}},
            [0, 1, 3],
            {"drop_matching": 2},
        ),
    ],
)
def test_filters_keep_names_and_count_what_they_remove(tmp_path, filter, kept, removed):
    rows = [
        ["How high does a lark fly over the fields?", "a", "1"],
        ["how high  does a lark fly over the fields? ", "a", "2"],
        ["What is seen in  the morning sky?", "b", "3"],
        ["How high does a lark fly over the fields!", "a", "4"],
        ["Why do leaves fall?", "c", "9"],
    ]
    write_csv(tmp_path, ["question", "kind", "n"], rows)
    table, metadata = read(csv_card(filter), tmp_path)
    assert sorted(by_id(table)) == [f"{n:06d}" for n in kept]
    assert (metadata["removed"], metadata["rows_read"], metadata["prompts"]) == (removed, 5, len(kept))


def test_a_prompt_may_be_broken_in_a_row_that_is_filtered_out(tmp_path):
    write_csv(tmp_path, ["question", "kind"], [["", "b"], ["one", "a"]])
    assert sorted(by_id(read(csv_card({"keep": {"kind": ["a"]}}), tmp_path)[0])) == ["000001"]


def test_the_sources_own_ids(tmp_path):
    (tmp_path / "set.jsonl").write_text('{"id": 7, "text": "one"}\n{"id": "b-2", "text": "two"}\n')
    columns = {"prompt": "text", "id": "id"}
    table, _ = read(card(file={"path": "set.jsonl", "format": "jsonl", "columns": columns}), tmp_path)
    assert sorted(table["prompt_id"].to_pylist()) == ["birds/7", "birds/b-2"]


def test_the_hash_of_the_prompts_is_that_of_the_set_whatever_the_source(tmp_path):
    write_csv(tmp_path, ["question"], [["one"], ["two"]])
    (tmp_path / "set.txt").write_bytes(b"two\r\none\r\n")
    from_csv = read(csv_card(), tmp_path)[1]
    as_text = card(file={"path": "set.txt", "format": "text"}, columns={"prompt": "text"})
    from_text = read(as_text, tmp_path, name="other")[1]
    assert from_csv["prompts_sha256"] == from_text["prompts_sha256"]
    assert from_csv["source"]["sha256"] != from_text["source"]["sha256"]


def test_which_source_is_read(tmp_path, monkeypatch):
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "set.jsonl").write_text('{"id": "e", "text": "embedded", "category": "k"}\n')
    write_csv(tmp_path, ["question"], [["file"]])
    answer = Rows(["ask"], [{"ask": "hub"}]), None
    monkeypatch.setattr("safety_regions.prompts.sources.read_hub", lambda where, source, columns: answer)
    hub = {"hub": {"repo": "nest/birds", "split": "train", "columns": {"prompt": "ask"}}}
    file = {"file": {"path": "set.csv", "format": "csv", "columns": {"prompt": "question"}}}
    embedded = {"embedded": {"path": "set.jsonl"}}

    def text(data_dir, **sources):
        return read(card(**sources), data_dir)[0]["text"].to_pylist()

    assert text(tmp_path, **hub, **file, **embedded) == ["embedded"]
    assert text(tmp_path, **hub, **file) == ["file"]
    assert text(tmp_path, **hub) == ["hub"]
    assert text(None, **hub, **file) == ["hub"]
    monkeypatch.chdir(tmp_path)
    assert text(None, **file) == ["file"], "relative to the working directory"
    monkeypatch.chdir("/")
    absolute = {"file": file["file"] | {"path": str(tmp_path / "set.csv")}}
    assert text(None, **hub, **absolute) == text(tmp_path / "prompts", **absolute) == ["file"]


@pytest.mark.parametrize(
    ("format", "content"),
    [
        ("json", '["one", "two"]'),
        ("jsonl", '"one"\n\n"two"\n'),
        ("text", "one\ntwo\n"),
        ("csv", "text\none\ntwo\n"),
    ],
)
def test_a_plain_list_of_prompts_needs_no_columns(tmp_path, format, content):
    (tmp_path / "set").write_text(content)
    table, metadata = read(card(file={"path": "set", "format": format}), tmp_path)
    assert sorted(table["text"].to_pylist()) == ["one", "two"] and metadata["rows_read"] == 2


@pytest.mark.parametrize(
    ("format", "content", "shown"),
    [
        ("csv", f"goal,{SECRET}\na,b\n", f"goal, column 2 ({len(SECRET)} characters)"),
        ("csv", f"goal;kind\n{SECRET};b\n", 'goal;kind; `delimiter: ";"` in the card'),
        ("csv", f"goal\tkind\n{SECRET}\tb\n", 'column 1 (9 characters); `delimiter: "\\t"` in the card'),
        ("csv", f"sep=;\ngoal;kind\n{SECRET};b\n", "goal, kind"),
        ("json", json.dumps([{"goal": SECRET}, {"kind": SECRET}]), "goal, kind"),
        ("jsonl", json.dumps({"goal": SECRET}) + "\n", "goal"),
    ],
)
def test_a_card_without_columns_is_told_the_columns_of_its_file(tmp_path, format, content, shown):
    (tmp_path / "set").write_text(content)
    message = message_of(read, card(file={"path": "set", "format": format}), tmp_path)
    assert "`columns` with the keys prompt (required), id, category" in message
    assert f"`columns: {{prompt: NAME}}` in the card; the file has: {shown}" in message


@pytest.mark.parametrize("content", ["[", "", "no JSON", '{"a": 1}'])
def test_a_damaged_file_of_a_card_without_columns_is_named(tmp_path, content):
    (tmp_path / "set").write_text(content)
    message = message_of(read, card(file={"path": "set", "format": "json"}), tmp_path)
    assert str(tmp_path / "set") in message and "`columns: {prompt: NAME}` in the card" in message


def test_a_missing_file_names_the_path_and_the_ways_out(tmp_path):
    message = message_of(read, csv_card(), tmp_path)
    assert str(tmp_path / "set.csv") in message and "data_dir" in message and "hub" in message
    message = message_of(read, card(embedded={"path": "set.jsonl"}), tmp_path)
    assert str(tmp_path / "prompts" / "set.jsonl") in message and "catalog" in message


@pytest.mark.parametrize(
    "part", [{"category": "colour"}, {"context_after": "colour"}, {"response": "colour"}, {"id": "colour"}]
)
def test_a_missing_column_lists_those_that_are_there(tmp_path, part):
    write_csv(tmp_path, ["question", "kind", SECRET], [["a", "b", "c"]])
    message = message_of(read, csv_card(**part), tmp_path)
    assert (
        f"no column colour; expected columns among: question, kind, column 3 ({len(SECRET)} characters)"
        in message
    )


@pytest.mark.parametrize("written", ["My question", "my  question", "my-question", "my question "])
def test_a_column_with_spaces_is_shown_if_the_card_almost_names_it(tmp_path, written):
    write_csv(tmp_path, ["my key", "my question", SECRET], [["a", "b", "c"]])
    file = {"path": "set.csv", "format": "csv", "columns": {"prompt": written}}
    message = message_of(read, card(file=file), tmp_path)
    assert "expected columns among: column 1 (6 characters), 'my question', column 3" in message
    file["columns"]["prompt"] = "my question"
    assert read(card(file=file), tmp_path)[0]["text"].to_pylist() == ["b"]


def test_a_card_gives_the_delimiter(tmp_path):
    (tmp_path / "set.csv").write_text("kind;question\na;one, two\n")
    found = csv_card()
    found["file"]["delimiter"] = ";"
    assert read(found, tmp_path)[0]["text"].to_pylist() == ["one, two"]


@pytest.mark.parametrize("key", ["text", "category", "id", "response"])
def test_half_an_emoji_is_located_and_may_be_filtered_out_or_not_read(tmp_path, key):
    rows = [{"text": f"prompt {i}", "category": "c", "id": f"i{i}", "response": "r"} for i in range(4)]
    rows[2][key] += "\ud83d"
    rows[1][key] += "\ud83d\ude42"
    (tmp_path / "set.json").write_text(json.dumps(rows))
    columns = {"prompt": "text", "category": "category", "id": "id", "response": "response"}
    cut = card(file={"path": "set.json", "format": "json"}, columns=columns)
    message = message_of(read, cut, tmp_path)
    assert "1 prompt with half a character" in message and "(row 2)" in message
    rows[2]["category"] = "cut"
    (tmp_path / "set.json").write_text(json.dumps(rows))
    cut["filter"] = {"drop": {"category": ["cut"]}}
    table = by_id(read(cut, tmp_path)[0])
    assert len(table) == 3 and "🙂" in "".join(map(str, table.items()))
    if key == "response":
        del cut["filter"], columns["response"]
        assert len(by_id(read(cut, tmp_path)[0])) == 4


def test_filters_need_their_columns_and_values_too(tmp_path):
    write_csv(tmp_path, ["question", "kind"], [[SECRET, "True"], ["one", "b"]])
    assert "no column colour" in message_of(read, csv_card({"drop": {"colour": ["b"]}}), tmp_path)
    matching = {"drop_matching": {"columns": ["colour"], "phrases": ["x"]}}
    assert "no column colour" in message_of(read, csv_card(matching), tmp_path)
    message = message_of(read, csv_card({"keep": {"kind": [True]}, "drop": {"kind": ["c", "b"]}}), tmp_path)
    assert (
        "2 problems" in message and "keep: kind: found True" in message and "drop: kind: found 'c'" in message
    )


def test_nothing_left_says_what_each_filter_took(tmp_path):
    write_csv(tmp_path, ["question", "kind"], [[SECRET, "a"], ["one", "b"], ["two", "b"]])
    message = message_of(read, csv_card({"keep": {"kind": ["b"]}, "drop": {"kind": ["b"]}}), tmp_path)
    assert "no prompt left of 3 rows (keep kind removed 1, drop kind removed 2)" in message
    write_csv(tmp_path, ["question"], [])
    assert "no prompt left of 0 rows (no filter)" in message_of(read, csv_card(), tmp_path)


@pytest.mark.parametrize("expected", [1, 3])
def test_another_number_of_rows_is_another_file(tmp_path, expected):
    write_csv(tmp_path, ["question"], [[SECRET], ["one"], ["ONE"]])
    counted = csv_card({"distinct": "exact"})
    counted["file"]["rows"] = expected
    says = f"found 2 prompts of 3 rows (distinct exact removed 1); expected {expected}"
    assert says in message_of(read, counted, tmp_path)


def test_prompts_that_are_no_text_are_counted_and_located(tmp_path):
    rows = [
        {"text": SECRET},
        {"text": 7},
        {"text": " \n"},
        {"text": None},
        {"other": SECRET},
        {"text": [SECRET]},
    ]
    (tmp_path / "set.json").write_text(json.dumps(rows))
    broken = card(file={"path": "set.json", "format": "json"}, columns={"prompt": "text"})
    assert "5 prompts with blank or non-text content (row 1, row 2, row 3, row 4, row 5)" in message_of(
        read, broken, tmp_path
    )
    (tmp_path / "set.json").write_text(json.dumps([{"text": "", "more": SECRET}] * 12))
    broken["columns"]["context_after"] = "more"
    assert "12 prompts with blank or non-text content (row 0, row 1," in message_of(read, broken, tmp_path)
    (tmp_path / "set.json").write_text(json.dumps([{"text": SECRET, "more": 3}]))
    assert "1 prompt with blank or non-text content (row 0)" in message_of(read, broken, tmp_path)


def test_ids_must_be_there_and_differ(tmp_path):
    write_csv(tmp_path, ["question", "key"], [[SECRET, "x"], ["one", "y"], ["two", "x"]])
    assert "1 prompt with an id that occurs twice (birds/x)" in message_of(read, csv_card(id="key"), tmp_path)
    assert "without an id, or with white space in it (row 0)" in message_of(
        read, csv_card(id="question"), tmp_path
    )
    rows = [{"question": "one", "key": None}, {"question": "two", "key": "a"}, {"question": "three"}]
    (tmp_path / "set.json").write_text(json.dumps(rows))
    nameless = csv_card(id="key") | {"file": {"path": "set.json", "format": "json"}}
    assert "2 prompts without an id, or with white space in it (row 0, row 2)" in message_of(
        read, nameless, tmp_path
    )
