"""Samples are chosen by rule, and batches keep the boundary between prompt and response."""

import pyarrow as pa
import pytest
import torch

from safety_regions.errors import StudyError
from safety_regions.formats.contracts import RESPONSES, SHARED_PROMPTS, USABLE
from safety_regions.formats.parquet import write_table
from safety_regions.model.batches import Sample, batches
from safety_regions.scoring.samples import Chosen, choose, choose_from, count_usable, encode_samples
from safety_regions.units.names import parse_name
from tests.tiny import tiny_backbone


def responses(dataset: str, n: int = 20) -> pa.Table:
    """Return responses to n prompts: every fifth prompt is complied with, and every fourth is held out."""
    rows = [
        {
            "prompt_id": f"{dataset}/{i}", "dataset": dataset, "split": "evaluate" if i % 4 == 0 else "identify",
            "half": 1 + i % 2, "prompt": f"question {i}", "response": "No.", "refused": i % 5 != 0, "n_tokens": 2,
        }
        for i in range(n)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows)


TABLES = {"a": responses("a"), "b": responses("b")}
KEEP = {"a": "refused", "b": "refused"}
SHARED = {
    "a": "a", "b": "b", "n_a": 20, "n_b": 20, "n_exact": 1, "n_near": 1, "near_a": ["a/1"], "near_b": ["b/2"],
}  # fmt: skip
"""A prompt of a that is also one of b."""


def ids_of(chosen: Chosen) -> list[str]:
    return [row["prompt_id"] for row in chosen.rows]


def ids(name: str, n: int = 6, keep=KEEP) -> list[str]:
    return ids_of(choose(parse_name(name), TABLES, n, keep))


def test_only_identification_prompts_that_were_refused():
    chosen = ids("a", 100)
    assert chosen == [f"a/{i}" for i in range(20) if i % 4 and i % 5]
    assert ids("a", 100, {"a": "complied"}) == ["a/5", "a/10", "a/15"]
    assert len(ids("a", 100, {"a": "all"})) == 15


def test_crossed_responses_are_paired_in_order_and_as_many_as_both_have():
    """The i-th prompt of a gets the i-th response of b, and keeps its own id and text."""
    other = responses("b", 10).to_pylist()
    rows = [row | {"response": f"refusal {i}"} for i, row in enumerate(other)]
    tables = {"a": TABLES["a"], "b": pa.Table.from_pylist(rows)}
    chosen = choose(parse_name("a^b"), tables, 100, KEEP).rows
    wanted = [row["response"] for row in rows if row["split"] == "identify" and row["refused"]]
    assert [row["response"] for row in chosen] == wanted and len(wanted) == 6
    assert [row["prompt_id"] for row in chosen] == ids("a", 6)
    assert [row["prompt"] for row in chosen] == [f"question {row['prompt_id'][2:]}" for row in chosen]
    assert {row["half"] for row in choose(parse_name("a^b.2"), tables, 100, KEEP).rows} == {2}


def test_fewer_prompts_than_asked_for_are_said_in_the_log(capsys):
    ids("a", 100)
    assert capsys.readouterr().out == "'a': 12 usable prompts, fewer than the 100 asked for\n"
    ids("a", 6)
    assert capsys.readouterr().out == ""


def test_an_answer_that_was_cut_off_in_a_thought_is_neither_refusal_nor_answer():
    table = TABLES["a"].set_column(6, "refused", pa.array([None] * TABLES["a"].num_rows, pa.bool_()))
    for kept, n in {"refused": 0, "complied": 0, "all": 15}.items():
        if n:
            assert len(choose(parse_name("a"), {"a": table}, 100, {"a": kept}).rows) == n
        else:
            with pytest.raises(StudyError, match="no usable prompt"):
                choose(parse_name("a"), {"a": table}, 100, {"a": kept})


def test_a_larger_n_extends_a_smaller_one():
    assert ids("a", 6) == ids("a", 9)[:6]


def test_halves_partition_and_pools_concatenate():
    whole = set(ids("a", 100))
    first, second = set(ids("a.1", 100)), set(ids("a.2", 100))
    assert first | second == whole and not first & second
    assert ids("a+b", 6) == ids("a", 6) + ids("b", 6)
    assert ids("a~3") == ids("a")


def test_blocks_are_disjoint_stretches_of_the_usable_prompts():
    assert ids("a@4") + ids("a@4x2") + ids("a@4x3") == ids("a", 12) and len(ids("a@4x2")) == 4
    assert ids("a.2@3") == ids("a.2", 100)[:3] and ids("a@4+b@4") == ids("a@4") + ids("b@4")
    with pytest.raises(StudyError, match="a@4x9"):
        ids("a@4x9")


def test_what_is_left_out_is_counted():
    chosen = choose(parse_name("a"), TABLES, 100, KEEP)
    assert chosen.skipped == {"a: not refused": 3} and len(chosen.rows) == 12


def test_shared_prompts_go_from_the_later_set_alone():
    shared = pa.Table.from_pylist([SHARED], schema=SHARED_PROMPTS.schema)
    chosen = {name: choose(parse_name(name), TABLES, 100, KEEP, shared) for name in "ab"}
    assert "a/1" in ids_of(chosen["a"]) and "b/2" not in ids_of(chosen["b"])
    assert chosen["b"].skipped == {"b: not refused": 3, "b: shared": 1}


def test_equal_numbers_are_those_of_the_smallest_set(tmp_path):
    """Usable are answered identification prompts that are kept and not shared; n is cut to the fewest of them."""
    shared, usable = tmp_path / "b.shared.parquet", tmp_path / "usable.parquet"
    write_table(shared, pa.Table.from_pylist([SHARED], schema=SHARED_PROMPTS.schema), SHARED_PROMPTS)
    paths = [tmp_path / f"{name}.parquet" for name in "ab"]
    for path in paths:
        filled = [{**row, "origin": "backbone", "stop": "eos"} for row in TABLES[path.stem].to_pylist()]
        write_table(path, pa.Table.from_pylist(filled, RESPONSES.schema), RESPONSES)
    counted = count_usable(paths, KEEP, [shared])
    whole = {name: choose_from(paths, parse_name(name), 100, KEEP, [shared]) for name in "ab"}
    assert counted.to_pylist() == [{"dataset": n, "n_usable": len(c.rows)} for n, c in whole.items()]
    assert len(whole["b"].rows) == len(whole["a"].rows) - 1
    with pytest.raises(StudyError, match="no usable prompt of b;"):
        every = {**SHARED, "near_a": ["a/1"] * 20, "near_b": [f"b/{i}" for i in range(20)]}
        write_table(usable, pa.Table.from_pylist([every], schema=SHARED_PROMPTS.schema), SHARED_PROMPTS)
        count_usable(paths, KEEP, [usable])
    write_table(usable, counted, USABLE)
    for name, n, expected in (("a", 100, 11), ("b", 100, 11), ("a", 5, 5), ("a.2", 100, 5), ("a+b", 100, 22)):
        chosen = choose_from(paths, parse_name(name), n, KEEP, [shared], [usable])
        assert len(chosen.rows) == sum(chosen.counts) == expected
        assert chosen.rows == choose_from(paths, parse_name(name), min(n, 11), KEEP, [shared]).rows


def test_nothing_left_is_an_error_without_the_prompts():
    table = pa.Table.from_pylist([{**row, "refused": False} for row in TABLES["a"].to_pylist()])
    with pytest.raises(StudyError, match="no usable prompt of 'a'") as raised:
        choose(parse_name("a"), {"a": table}, 5, KEEP)
    assert "question" not in str(raised.value)


def test_batches_mask_padding_prompt_and_targets():
    samples = [Sample("x", [1, 2, 3, 4, 5], 2), Sample("y", [6, 7, 8], 1)]
    (batch,) = batches(samples, 2)
    assert batch.prompt_ids == ("x", "y")
    assert batch.input_ids.tolist() == [[1, 2, 3, 4, 5], [6, 7, 8, 0, 0]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert batch.response_mask.tolist() == [
        [False, False, True, True, True],
        [False, True, True, False, False],
    ]
    assert batch.target_mask.tolist() == [[False, True, True, True, False], [True, True, False, False, False]]


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_every_sample_is_in_one_batch(size):
    samples = [Sample(str(i), list(range(i + 2)), 1) for i in range(7)]
    made = list(batches(samples, size))
    assert sorted(i for batch in made for i in batch.prompt_ids) == [str(i) for i in range(7)]
    assert sum(int(batch.target_mask.sum()) for batch in made) == sum(len(s.ids) - 1 for s in samples)
    assert all(torch.equal(b.target_mask.sum(1), b.response_mask.sum(1)) for b in made)


def test_a_sample_beyond_the_context_is_named_by_id():
    backbone = tiny_backbone("llama")
    rows = [{"prompt_id": "a/1", "prompt": "word " * 100, "response": "No."}]
    with pytest.raises(StudyError, match=r"a/1 \(\d+\+3\)") as raised:
        encode_samples(backbone, rows)
    assert "word" not in str(raised.value)


def test_samples_on_both_sides_of_the_switch_of_long_rope_share_no_batch():
    samples = [Sample(str(i), list(range(i + 2)), 1) for i in range(7)]
    lengths = [
        [len(samples[int(i)].ids) for i in batch.prompt_ids] for batch in batches(samples, 3, switch=4)
    ]
    assert lengths == [[8, 7, 6], [5], [4, 3, 2]]
    assert [len(batch.prompt_ids) for batch in batches(samples, 3, switch=100)] == [3, 3, 1]
