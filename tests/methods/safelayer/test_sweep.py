"""A sweep counts what a scaled copy of the backbone would answer, says what it measured, and leaves no trace."""

import zlib

import pytest
import torch

from safety_regions.errors import StudyError
from safety_regions.formats.contracts import LAYER_SWEEP
from safety_regions.formats.parquet import conform
from safety_regions.methods.safelayer import sweep as module
from safety_regions.methods.safelayer.scaling import scaled
from safety_regions.methods.safelayer.sweep import plan_of
from safety_regions.model.generate import answer_prompts
from safety_regions.study.method_shelf import method_cards
from tests.oracles import layers as oracle
from tests.tiny import FAMILIES, tiny_backbone

DEFAULTS = {name: rule["default"] for name, rule in method_cards()["safelayer"]["options"].items()}
OPTIONS = DEFAULTS | {"alpha": 1.3, "max_new_tokens": 3, "scale_target": "weights"}
QUESTIONS = [f"{'why ' * (i % 4)}question number {i}" for i in range(9)]


def sweep_of(backbone, questions, gap, options, batch_size):
    """A sweep that starts at a gap (first and last layer, or None)."""
    named = {f"q{i}": question for i, question in enumerate(questions)}
    return module.sweep(backbone, named, {"gap": gap}, options, batch_size)


def test_questions_beyond_the_context_are_named_by_their_ids():
    backbone = tiny_backbone("llama")
    long = "why " * backbone.config.max_position_embeddings
    with pytest.raises(StudyError, match=r"unusable lengths \(tokens\): q1 \(\d+\)") as caught:
        sweep_of(backbone, [QUESTIONS[0], long], [1, 1], OPTIONS, 4)
    assert "why" not in str(caught.value)


def looks_like_a_refusal(text: str) -> bool:
    """Random models never refuse, so half of all texts are taken for refusals."""
    return zlib.crc32(text.encode()) % 2 == 0


@pytest.fixture(autouse=True)
def refusals(monkeypatch):
    monkeypatch.setattr(module, "is_refusal", looks_like_a_refusal)


def literal_count(backbone, questions, max_new_tokens) -> int:
    """Refusals of a copy, one question at a time."""
    answers = [
        answer_prompts(backbone, [q], max_new_tokens=max_new_tokens, batch_size=1)[0] for q in questions
    ]
    return sum(looks_like_a_refusal(answer.text) for answer in answers)


@pytest.mark.parametrize("family", FAMILIES)
def test_counts_are_those_of_a_scaled_copy(family):
    backbone = tiny_backbone(family)
    before = {name: parameter.clone() for name, parameter in backbone.model.named_parameters()}
    found = sweep_of(backbone, QUESTIONS, [0, 1], OPTIONS | {"window": 1}, batch_size=4)
    rows = found.table.to_pylist()
    assert rows[0] | {"refusals": 0} == {
        "alpha": 1.0, "bound": "none", "first_layer": None, "last_layer": None, "refusals": 0,
    }  # fmt: skip
    assert rows[0]["refusals"] == literal_count(backbone, QUESTIONS, 3)
    for row in rows[1:]:
        copy = oracle.scaled_copy(backbone, row["alpha"], row["first_layer"], row["last_layer"])
        assert row["refusals"] == literal_count(copy, QUESTIONS, 3), row
    for name, parameter in backbone.model.named_parameters():
        assert torch.equal(parameter, before[name])


@pytest.mark.slow
def test_batches_and_repetition_change_nothing():
    backbone = tiny_backbone("qwen2")
    first = sweep_of(backbone, QUESTIONS, [1, 1], OPTIONS, batch_size=1)
    for size in (2, 9):
        again = sweep_of(backbone, QUESTIONS, [1, 1], OPTIONS, batch_size=size)
        assert again.table.equals(first.table) and again.found == first.found


def test_what_was_found_stands_in_the_table():
    backbone = tiny_backbone("llama")
    found = sweep_of(
        backbone, QUESTIONS, [0, 2], OPTIONS | {"alpha": None, "search": "grid", "spread": 0.0}, 4
    )
    rows = {(r["alpha"], r["first_layer"], r["last_layer"]): r["refusals"] for r in found.table.to_pylist()}
    what = found.found
    assert what["refusals"] == rows[what["alpha"], *what["range"]]
    assert what["refusals"] == max(count for (alpha, *_), count in rows.items() if alpha == what["alpha"])
    assert what["refusals_unscaled"] == rows[1.0, None, None]
    assert what["alpha"] == 1.05 and what["spread_reached"] and what["questions"] == 9
    assert conform(found.table, LAYER_SWEEP).num_rows == len(rows) == 7


def test_the_options_reach_the_model(monkeypatch):
    seen = []

    def spy(backbone, alpha, span, target, norms):
        seen.append((alpha, tuple(span), target, norms))
        return scaled(backbone, alpha, span, target, norms)

    monkeypatch.setattr(module, "scaled", spy)
    changes = {"alpha": 0.8, "norms": True, "scale_target": "auto", "questions": 2}
    found = sweep_of(tiny_backbone("gemma2"), QUESTIONS, [1, 1], OPTIONS | changes, 4).found
    assert {(alpha, target, norms) for alpha, _, target, norms in seen} == {(0.8, "residual", True)}
    assert found["scale_target"] == "residual" and found["questions"] == 2


def test_no_gap_no_range():
    found = sweep_of(tiny_backbone("llama"), QUESTIONS, None, OPTIONS, 4)
    assert found.table.num_rows == 0 and found.found["range"] is None and found.found["initial"] is None


def test_an_error_in_the_middle_leaves_the_weights(monkeypatch):
    backbone = tiny_backbone("llama", dtype=torch.bfloat16)
    before = {name: parameter.clone() for name, parameter in backbone.model.named_parameters()}
    calls = []

    def fail(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise StudyError("in the middle")
        return answer_prompts(*args, **kwargs)

    monkeypatch.setattr(module, "answer_prompts", fail)
    with pytest.raises(StudyError, match="in the middle"):
        sweep_of(backbone, QUESTIONS, [0, 1], OPTIONS, 4)
    for name, parameter in backbone.model.named_parameters():
        assert torch.equal(parameter, before[name])


def test_no_question_is_printed(capsys):
    sweep_of(tiny_backbone("llama"), QUESTIONS, [0, 1], OPTIONS, 4)
    said = capsys.readouterr().out
    assert "of 9 refused" in said and not any(question in said for question in QUESTIONS)


def test_the_spread_is_a_share_of_the_questions_unless_given_in_questions():
    assert plan_of(DEFAULTS, 721).spread == pytest.approx(14.42)
    assert plan_of(DEFAULTS | {"spread_questions": 20}, 721).spread == 20
    assert plan_of(DEFAULTS | {"spread_questions": 0}, 721).spread == 0
    assert plan_of(DEFAULTS, 100)._replace(spread=0) == (None, "amplify", 0.05, 10, 0, 2, "walk")
