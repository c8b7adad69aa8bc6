"""An adapter with which its backbone refuses too little is an error; refusals are counted as a literal oracle does."""

import zlib

import pyarrow as pa
import pytest

from safety_regions.errors import StudyError
from safety_regions.model.generate import answer_prompts
from safety_regions.model.loading import wrap_backbone
from safety_regions.model.lora import read_adapter
from safety_regions.training import adapter_refusals as refusals
from safety_regions.training import refusals as judged
from safety_regions.training.adapter_refusals import check_adapter, held_out_prompts, measure_adapter
from tests.oracles import lora as oracle
from tests.tiny import tiny_backbone
from tests.training.adapters import responses_of, write_adapter

BETA = 0.9
AMPLIFIED = 1 + BETA


def rows_of(alone: int, trained: int, amplified: int, n: int = 8) -> list[dict]:
    counts = zip((0.0, 1.0, AMPLIFIED), (alone, trained, amplified), strict=True)
    return [{"phase": "held-out", "n": n, "refused": k, "factor": factor} for factor, k in counts]


def odd(text: str) -> bool:
    """Return whether a text counts as a refusal of a random model; about half of all texts do."""
    return bool(zlib.crc32(text.encode()) % 2)


@pytest.mark.parametrize("family", ["llama3", "phi3"])
def test_refusals_are_those_of_merged_weights(family, tmp_path, monkeypatch):
    monkeypatch.setattr(judged, "is_refusal", odd)
    monkeypatch.setattr(refusals, "ANSWER_TOKENS", 3)
    backbone = tiny_backbone(family)
    folder = write_adapter(backbone, tmp_path / "adapter", lora_alpha=30)
    prompts = [f"{'please ' * (i % 3)}{i}" for i in range(12)]
    adapter = read_adapter(backbone, folder)
    found = measure_adapter(backbone, adapter, prompts, 5, BETA)
    expected = []
    for factor in (0.0, 1.0, AMPLIFIED):
        merged = wrap_backbone(oracle.merged(backbone, folder, factor), backbone.tokenizer, {})
        answers = answer_prompts(merged, prompts, max_new_tokens=3, batch_size=1)
        expected.append((factor, len(prompts), sum(odd(answer.text) for answer in answers)))
    assert [(row["factor"], row["n"], row["refused"]) for row in found] == expected
    assert len({count for *_, count in expected}) > 1  # the adapter changes the answers
    assert measure_adapter(backbone, adapter, prompts, 5, None) == found[:2]


def test_prompts_are_held_out_ones_in_equal_shares_that_leave_room(monkeypatch):
    monkeypatch.setattr(refusals, "MOST_PROMPTS", 6)
    backbone = tiny_backbone("llama")
    sets = {name: responses_of(name, [True] * 9, held_out=n) for name, n in (("a", 5), ("b", 2), ("c", 0))}
    expected = [f"Please a {i}" for i in (4, 5)] + [f"Please b {i}" for i in (7, 8)]
    assert held_out_prompts(backbone, sets, ["a", "b", "c"], 512) == expected
    assert held_out_prompts(backbone, sets, ["c"], 512) == held_out_prompts(backbone, sets, [], 512) == []
    length = len(backbone.prompt_ids("Please a 4"))
    long = sets["a"].to_pandas()
    long.loc[4, "prompt"] += " please"
    sets["a"] = pa.Table.from_pandas(long, schema=sets["a"].schema)
    found = held_out_prompts(backbone, sets, ["a"], length + refusals.ANSWER_TOKENS)
    assert found == [f"Please a {i}" for i in (5, 6, 7, 8)]
    monkeypatch.setattr(refusals, "ANSWER_TOKENS", backbone.config.max_position_embeddings - length + 1)
    assert held_out_prompts(backbone, sets, ["a"], 512) == []


def test_too_few_refusals_are_an_error_with_rates_and_remedy():
    with pytest.raises(StudyError) as raised:
        check_adapter(rows_of(8, 3, 0), 0.5)
    for part in ("37.5%", "100.0% without", "at least 50.0%", "learning_rate", "steps"):
        assert part in str(raised.value)


@pytest.mark.parametrize(
    "trained,amplified,required,warned",
    [(4, 4, 0.5, False), (8, 3, 0.5, True), (8, 8, 1.0, False), (8, 7, 1.0, True), (0, 0, 0, False)],
)
def test_the_log_names_rates_and_warns_of_the_amplified(trained, amplified, required, warned, capsys):
    check_adapter(rows_of(8, trained, amplified), required)
    first, *more = capsys.readouterr().out.splitlines()
    assert (
        f"{trained / 8:.1%} with the adapter as trained, {amplified / 8:.1%} with it amplified by 1.9"
        in first
    )
    assert len(more) == warned
    assert all(f"refuses {amplified / 8:.1%}" in line and "learning_rate" in line for line in more)


def test_an_adapter_that_is_not_amplified_is_judged_as_trained(capsys):
    check_adapter(rows_of(8, 4, 0)[:2], 0.5)
    assert capsys.readouterr().out.splitlines() == [
        "of 8 held-out harmful prompts, refused: 100.0% by the backbone, 50.0% with the adapter as trained"
    ]
