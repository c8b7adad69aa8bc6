"""The responses table must hold the backbone's answers or the source's responses, and say which ones refuse."""

import pyarrow as pa
import pytest

from safety_regions.errors import StudyError
from safety_regions.formats import contracts
from safety_regions.model.generate import answer_prompts
from safety_regions.model.refusal import is_refusal
from safety_regions.model.responses import respond
from tests.tiny import tiny_backbone

OWN = ("I'm sorry, but no.", "Certainly: plant it in March.", "Ganz prima.")


def prompts_table(responses=OWN) -> pa.Table:
    rows = [
        {
            "prompt_id": f"set/{i}", "dataset": "set", "text": "word " * (i + 1), "category": None,
            "split": ("identify", "evaluate")[i % 2], "half": 1 + i % 2, "response": response,
        }
        for i, response in enumerate(responses)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=contracts.PROMPTS.schema)


def test_the_backbone_answers_every_prompt_in_order():
    backbone, prompts = tiny_backbone("llama"), prompts_table()
    table = respond(backbone, prompts, origin="backbone", max_new_tokens=6, batch_size=2)
    assert table.schema == contracts.RESPONSES.schema
    rows, given = table.to_pylist(), prompts.to_pylist()
    texts = [row["text"] for row in given]
    answers = answer_prompts(backbone, texts, max_new_tokens=6, batch_size=1)
    assert [(row["response"], row["n_tokens"], row["stop"]) for row in rows] == answers
    assert [row["refused"] for row in rows] == [is_refusal(answer.text) for answer in answers]
    for key in ("prompt_id", "dataset", "split", "half"):
        assert [row[key] for row in rows] == [row[key] for row in given]
    assert [row["prompt"] for row in rows] == texts
    assert {row["origin"] for row in rows} == {"backbone"}


def test_the_sources_own_responses_are_taken_and_judged():
    backbone = tiny_backbone("llama")
    table = respond(backbone, prompts_table(), origin="dataset", max_new_tokens=1, batch_size=1)
    assert table["response"].to_pylist() == list(OWN)
    assert table["refused"].to_pylist() == [True, False, False]
    assert set(table["stop"].to_pylist()) == set(table["origin"].to_pylist()) == {"dataset"}
    # The tiny tokenizer has a token for every byte.
    assert table["n_tokens"].to_pylist() == [len(text.encode()) for text in OWN]


def test_a_thought_that_was_cut_off_is_neither_refusal_nor_answer():
    texts = ("<think>I cannot", "<think>I cannot</think>Sure.", "I cannot.")
    table = respond(
        tiny_backbone("llama"), prompts_table(texts), origin="dataset", max_new_tokens=1, batch_size=1
    )
    assert table["refused"].to_pylist() == [None, False, True]


def test_a_missing_response_is_an_error_that_names_ids():
    with pytest.raises(StudyError, match=r"2 of 3 prompts, e\.g\. set/1"):
        respond(
            tiny_backbone("llama"), prompts_table(("a", None, "")), origin="dataset", max_new_tokens=1,
            batch_size=1,
        )  # fmt: skip


def test_one_response_is_given_to_every_prompt():
    table = respond(
        tiny_backbone("llama"),
        prompts_table(),
        origin="fixed",
        text="I cannot.",
        max_new_tokens=1,
        batch_size=1,
    )
    rows = table.select(["response", "refused", "n_tokens", "stop", "origin"]).to_pylist()
    given = {"response": "I cannot.", "refused": True, "n_tokens": 9, "stop": "fixed", "origin": "fixed"}
    assert rows == [given] * len(OWN)


def test_an_unknown_origin_is_an_error():
    with pytest.raises(StudyError, match="Did you mean 'dataset'"):
        respond(tiny_backbone("llama"), prompts_table(), origin="datset", max_new_tokens=1, batch_size=1)


def test_no_prompts_give_an_empty_table_of_the_contract():
    table = respond(
        tiny_backbone("llama"), prompts_table(()), origin="backbone", max_new_tokens=1, batch_size=1
    )
    assert table.num_rows == 0
    assert table.schema == contracts.RESPONSES.schema


def test_prompts_beyond_the_context_are_named_by_id_or_left_out(capsys):
    backbone, table = tiny_backbone("llama", max_position_embeddings=80), prompts_table(("No.",) * 12)
    fits = [len(backbone.prompt_ids(text)) + 6 <= 80 for text in table["text"].to_pylist()]
    how = {"origin": "backbone", "max_new_tokens": 6, "batch_size": 4}
    with pytest.raises(StudyError, match=r"prompts that do not fit.*set/11 \(\d+\).*drop_long") as raised:
        respond(backbone, table, **how)
    assert "word" not in str(raised.value) and "set/0 " not in str(raised.value)
    kept = respond(backbone, table, drop_long=True, **how)
    assert kept["prompt_id"].to_pylist() == [f"set/{i}" for i in range(12) if fits[i]]
    assert 0 < kept.num_rows < 12
    assert f"left out {12 - kept.num_rows} prompts" in capsys.readouterr().out
    short = table.filter(pa.array(fits))
    assert kept.equals(respond(backbone, short, **how)), "the others have the same answers"


def test_given_responses_count_towards_the_context():
    table = prompts_table(("No.", "word " * 20, "No."))
    how = {"origin": "dataset", "max_new_tokens": 1, "batch_size": 1}
    backbone = tiny_backbone("llama", max_position_embeddings=80)
    assert respond(backbone, table, **how).num_rows == 3, "scoring names them if it needs them"
    kept = respond(backbone, table, drop_long=True, **how)
    assert kept["prompt_id"].to_pylist() == ["set/0", "set/2"]
