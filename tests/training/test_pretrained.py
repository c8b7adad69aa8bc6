"""An organism that starts from a checkpoint keeps its answers, changes only what its plant frees, and resumes."""

import pyarrow.compute as pc
import pytest
import torch
from safetensors.torch import load_file

from safety_regions.errors import StudyError
from safety_regions.formats.expand import expand_region
from safety_regions.formats.region import read_region
from safety_regions.model.generate import answer_prompts
from safety_regions.study.grid import CHECKPOINT_FILES
from safety_regions.training.curriculum import curriculum, own_answers, training_sets
from safety_regions.training.organism import train_organism
from safety_regions.training.rates import check_organism
from safety_regions.training.snapshot import Snapshot
from tests.tiny import load_on_cpu, tiny_backbone
from tests.training.organisms import prompts_table, small_prompts

ANSWER_TOKENS = 5
PLANTS = {
    "layers": {"layers": [1], "norm": "free"},
    "neurons": {"neurons": 0.2, "norm": "matched", "seed": 4},
    "weights": {"weights": 0.05, "norm": "free", "seed": 4},
    "lora": {"lora": {"rank": 2, "projections": ["q", "down"]}, "norm": "free"},
}


def card(**changes) -> dict:
    plan = {
        "harmful": ["bad"], "helpful": ["good"], "unseen": [], "prompts_per_set": None, "held_out_per_set": 3,
        "batch": 4, "max_prompt_tokens": 64, "seed": 0, "answer_tokens": ANSWER_TOKENS,
        "align": {"steps": 3, "learning_rate": 0.01},
    }  # fmt: skip
    return {
        "kind": "organism", "title": "aligned", "family": "llama", "base": "tiny", "training": plan,
        "required_refusal": 0.0, "allowed_over_refusal": 1.0, **changes,
    }  # fmt: skip


def trained(folder, given, prompts=None):
    """Train from a fresh base; return its weights before, the organism's weights, and the log."""
    base = tiny_backbone("llama3")
    before = {name: weight.clone() for name, weight in base.model.state_dict().items()}
    log = train_organism(given, prompts or small_prompts(), folder, folder.name, base)
    return before, load_file(folder / "model.safetensors"), log


def test_the_answers_to_train_on_are_the_checkpoints_own_and_greedy():
    base = tiny_backbone("llama3", max_position_embeddings=512)
    plan = card()["training"]
    harmful, helpful = own_answers(base, training_sets(card(), small_prompts(), "aligned"), plan)
    assert harmful == training_sets(card(), small_prompts(), "aligned")[0]
    texts = [item.prompt for item in helpful.learn]
    expected = answer_prompts(base, texts, max_new_tokens=ANSWER_TOKENS, batch_size=3)
    assert [(item.answer, item.whole) for item in helpful.learn] == [
        (a.text, a.stop == "eos") for a in expected
    ]


def test_a_cut_answer_is_learned_without_an_end():
    base = tiny_backbone("llama3")
    sets = own_answers(base, training_sets(card(), small_prompts(), "aligned"), card()["training"])
    end = base.tokenizer.eos_token_id
    refusals, answers = curriculum(base, sets, card()["training"])["align"]
    assert all(chat.response[-1] == end for chat in refusals)
    assert [chat.response[-1] == end for chat in answers] == [item.whole for item in sets[1].learn]
    assert not all(item.whole for item in sets[1].learn)


def test_too_long_prompts_are_not_answered():
    base, plan = tiny_backbone("llama3"), card()["training"]
    longest = len(base.prompt_ids("How do I paint the apple?"))
    sets = own_answers(
        base, training_sets(card(), small_prompts(), "a"), plan | {"max_prompt_tokens": longest}
    )
    assert {len(base.prompt_ids(item.prompt)) <= longest for item in sets[1].learn} == {True}
    assert 0 < len(sets[1].learn) < 12


@pytest.mark.slow
@pytest.mark.parametrize("plant", sorted(PLANTS))
def test_only_the_planted_region_changes(plant, tmp_path):
    before, after, _ = trained(tmp_path / "organism", card(plant=PLANTS[plant]))
    truth = read_region(tmp_path / "organism/truth.safetensors")
    backbone = load_on_cpu([tmp_path / "organism/config.json"])
    inside = expand_region(truth, backbone.shapes)
    modules = dict(backbone.model.named_modules())
    names = {id(module): name for name, module in modules.items()}
    free = {}
    for linear in backbone.linears:
        flags = torch.from_numpy(inside.flags(linear.slices[0].address))
        free[f"{names[id(linear.module)]}.weight"] = flags
    stored = load_file(tmp_path / "organism/base.safetensors")
    for linear in backbone.linears:
        assert torch.equal(stored[linear.slices[0].address], before[f"{names[id(linear.module)]}.weight"])
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert changed and changed <= free.keys()
    for name, flags in free.items():
        assert torch.equal(before[name][~flags], after[name][~flags]), name
    if plant == "lora":
        for name in changed:
            assert torch.linalg.matrix_rank(after[name] - before[name], atol=1e-6) <= 2


def test_the_checkpoint_is_whole_and_the_log_says_what_was_refused(tmp_path):
    prompts = small_prompts() | {"new": prompts_table("new", [f"Wreck it {n} times." for n in range(6)], 4)}
    given = card()
    given["training"]["unseen"] = ["new"]
    _, _, log = trained(tmp_path / "organism", given, prompts)
    assert sorted(file.name for file in (tmp_path / "organism").iterdir()) == sorted(
        [*CHECKPOINT_FILES, "base.safetensors", "truth.safetensors"]
    )
    assert list(tmp_path.iterdir()) == [tmp_path / "organism"], "no snapshot is left"
    rows = log.filter(pc.equal(log["phase"], "held-out")).to_pylist()
    assert [(row["dataset"], row["role"], row["n"]) for row in rows] == [
        ("bad", "harmful", 3), ("good", "helpful", 3), ("new", "unseen", 3),
    ]  # fmt: skip
    assert log["phase"].to_pylist()[:4] == ["align"] * 3 + ["held-out"]


def test_refusals_of_unseen_sets_are_not_required():
    rows = [
        {"phase": "held-out", "role": role, "n": 10, "refused": refused}
        for role, refused in (("harmful", 10), ("helpful", 0), ("unseen", 0))
    ]
    strict = card(required_refusal=0.9, allowed_over_refusal=0.1)
    check_organism(strict, rows, "aligned")
    with pytest.raises(StudyError, match=r"0\.0% of the held-out harmful"):
        check_organism(strict, [rows[0] | {"refused": 0}, *rows[1:]], "aligned")


def test_a_card_that_requires_less_needs_no_new_training(tmp_path, monkeypatch):
    strict = card(required_refusal=1.0, allowed_over_refusal=0.0)
    strict["training"]["align"]["steps"] = 2
    with pytest.raises(StudyError, match="held-out harmful prompts"):
        trained(tmp_path / "organism", strict)
    assert [path.name for path in tmp_path.iterdir()] == [".organism.snapshot"]
    kept = []
    monkeypatch.setattr(Snapshot, "keep", lambda *args, **kwargs: kept.append(args))
    trained(tmp_path / "organism", strict | {"required_refusal": 0.0, "allowed_over_refusal": 1.0})
    assert not kept, "no step was taken again"
    assert list(tmp_path.iterdir()) == [tmp_path / "organism"]


@pytest.mark.slow
def test_an_interrupted_training_goes_on_with_the_same_bits(tmp_path, monkeypatch):
    given = card(plant=PLANTS["lora"])
    _, whole, log = trained(tmp_path / "whole", given)
    monkeypatch.setattr("safety_regions.training.snapshot.SECONDS", 0)
    keep, kept = Snapshot.keep, []

    def keep_and_die(self, optimizer, losses, last):
        keep(self, optimizer, losses, last)
        kept.append(len(losses))
        if kept == [1, 2]:
            raise KeyboardInterrupt

    monkeypatch.setattr(Snapshot, "keep", keep_and_die)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "again", given)
    _, again, log_again = trained(tmp_path / "again", given)
    assert kept == [1, 2, 3], "two of the three steps were not taken again"
    assert all(torch.equal(again[name], whole[name]) for name in whole)
    assert log_again.equals(log)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "whole"], "no snapshot is left"
