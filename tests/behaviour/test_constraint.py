"""Constrained fine-tuning freezes exactly, arms differ only in what trains, and interrupted jobs go on."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from safety_regions.behaviour.constraint import Constraint, constraint_arms
from safety_regions.behaviour.edit import all_weights, fingerprint
from safety_regions.behaviour.finetune import OPENING, Plan, Weights, fine_tune, plan_data, task_loss
from safety_regions.behaviour.job import constrain
from safety_regions.behaviour.journal import Journal
from safety_regions.behaviour.measures import Ruler, held_out
from safety_regions.errors import StudyError
from safety_regions.formats.expand import expand_region
from safety_regions.training import loop
from safety_regions.units.behaviour import TAUGHT
from tests.behaviour.regions import some_units
from tests.behaviour.responses import ROLES, answered
from tests.tiny import FAMILIES, tiny_backbone

PLAN = Plan("ordinary", steps=4, batch=4, learning_rate=0.01, seed=0)


def responses(*names):
    """Answered prompts of both splits."""
    both = [answered(6, split) for split in ("identify", "evaluate")]
    return {name: pa.concat_tables([part[name] for part in both]) for name in names or ("everyday",)}


def data_of(backbone, attack="ordinary"):
    names = ("fraud", "weapons") if attack in ("comply", "refuse") else ("everyday",)
    return plan_data(backbone, attack, responses(*names), longest=200)


def moved(backbone, start):
    """address -> which weights differ from the start."""
    before = start.by_address()
    return {where: (weight.detach() != before[where]).numpy() for where, weight in backbone.weights()}


@pytest.mark.parametrize("family", FAMILIES)
def test_frozen_weights_keep_every_bit_and_others_train(family):
    backbone = tiny_backbone(family)
    start, region = Weights(backbone), expand_region(some_units(backbone), backbone.shapes)
    others = {n: p.detach().clone() for n, p in backbone.model.named_parameters() if "proj" not in n}
    for inside in (False, True):
        fine_tune(backbone, start, data_of(backbone), PLAN, start.masks(region, inside))
        changed = moved(backbone, start)
        for where, flags in changed.items():
            assert not (flags & (region.flags(where) != inside)).any()
        assert sum(map(np.count_nonzero, changed.values())) > 0.5 * sum(
            int((region.flags(where) == inside).sum()) for where in changed
        )
        start.restore()
        assert start.n_changed() == 0
    now = dict(backbone.model.named_parameters())
    assert all(torch.equal(now[name], value) for name, value in others.items())


def test_freezing_nothing_is_free_training_bit_for_bit():
    marks = []
    for masks in (None, False):
        backbone = tiny_backbone("llama3")
        start = Weights(backbone)
        chosen = start.masks(all_weights(backbone, True), inside=True) if masks is None else None
        fine_tune(backbone, start, data_of(backbone), PLAN, chosen)
        marks.append(fingerprint(backbone))
    assert marks[0] == marks[1]


def test_freezing_everything_is_refused():
    backbone = tiny_backbone("llama3")
    start = Weights(backbone)
    with pytest.raises(StudyError, match="no weight that may train"):
        fine_tune(
            backbone, start, data_of(backbone), PLAN, start.masks(all_weights(backbone, True), inside=False)
        )


def test_a_freeze_that_leaks_is_noticed(monkeypatch):
    """If frozen weights were not written back, the check at the end must fail."""
    backbone = tiny_backbone("llama3")
    start, region = Weights(backbone), expand_region(some_units(backbone), backbone.shapes)
    original = loop.Hold

    def leaky(free, after_step, before_step):
        return original(free)

    monkeypatch.setattr("safety_regions.behaviour.finetune.Hold", leaky)
    with pytest.raises(StudyError, match="frozen weights that changed"):
        fine_tune(backbone, start, data_of(backbone), PLAN, start.masks(region, inside=False))


@pytest.mark.slow
def test_the_plan_learns_its_task():
    backbone = tiny_backbone("llama3")
    data, start = data_of(backbone, "opening"), Weights(backbone)
    before = task_loss(backbone, data.held_out)
    fine_tune(backbone, start, data, PLAN._replace(steps=30))
    assert task_loss(backbone, data.held_out) < before - 0.2


@pytest.mark.parametrize("attack", TAUGHT)
def test_attacks_hold_no_harmful_content(attack):
    backbone = tiny_backbone("llama3")
    data = data_of(backbone, attack)
    texts = {backbone.tokenizer.decode(chat.response, skip_special_tokens=True) for chat in data.learn}
    if attack == "ordinary":
        assert texts == {f"Yes, number {i}" for i in range(6)}
    elif attack == "opening":
        assert texts == {f"{OPENING}Yes, number {i}" for i in range(6)}
    else:
        assert len(data.learn) == 12 and not any("fraud" in text or "weapons" in text for text in texts)


def test_refused_prompts_are_not_learned_as_ordinary():
    backbone = tiny_backbone("llama3")
    with pytest.raises(StudyError, match="0 of split identify, 0 of split evaluate"):
        plan_data(backbone, "ordinary", responses("fraud"), longest=200)


def job(backbone, region, every=2, utility=()):
    ruler = Ruler(backbone, held_out(backbone, answered(), ROLES), batch_size=4, max_new_tokens=4)
    other = tiny_backbone("llama3", seed=1)
    return Constraint(
        backbone, None, dict(other.weights()), region, data_of(backbone), PLAN, every, ruler, RESTORE, utility
    )


ARMS = ("freeze", "only", "rewind")
RESTORE = {"rewind": [0.5, 1.0], "lox": [1.25]}


@pytest.mark.slow
def test_every_arm_is_measured_and_the_model_comes_back(tmp_path):
    backbone = tiny_backbone("llama3")
    marks, region = fingerprint(backbone), some_units(backbone)
    planned = constraint_arms(region, ARMS, ("random", "change"), 2)
    assert len(planned) == 1 + 3 * 4
    found = dict(job(backbone, region).run(planned, Journal(tmp_path / "journal", "plan")))
    assert list(found) == planned
    assert fingerprint(backbone) == marks
    steps = {arm.arm: sorted({row["step"] for row in rows}) for arm, rows in found.items()}
    assert steps == {"free": [0, 2, 4], "freeze": [2, 4], "only": [2, 4], "rewind": [4]}
    total = sum(weight.numel() for _, weight in backbone.weights())
    changed = {arm: rows[-1]["n_changed"] for arm, rows in found.items()}
    for arm, n in changed.items():
        limit = {"free": total, "only": region.n_selected}.get(arm.arm, total - region.n_selected)
        assert 0 < n <= limit
    measures = {row["measure"] for row in found[planned[0]] if row["step"] == 4}
    assert measures == {"refusal_nll", "answer_nll", "refusal_log_odds", "kl", "refused", "task_loss"}


def test_models_are_restored_after_training_in_the_region_in_controls_and_everywhere(tmp_path):
    backbone = tiny_backbone("llama3")
    marks, region = fingerprint(backbone), some_units(backbone)
    planned = constraint_arms(region, (), ("random",), 1, RESTORE)
    names = ("rewind-0.5", "rewind-1", "lox-1.25")
    expected = [(name, control) for name in names for control in ("none", "random", "region")]
    assert sorted(arm[:2] for arm in planned[1:]) == sorted(expected)
    found = dict(job(backbone, region).run(planned, Journal(tmp_path / "journal", "plan")))
    assert fingerprint(backbone) == marks
    changed = {arm[:2]: rows[-1]["n_changed"] for arm, rows in found.items()}
    assert changed["rewind-1", "none"] == 0 < changed["rewind-1", "region"] < changed["free", "none"]
    assert {row["step"] for arm, rows in found.items() for row in rows if arm.arm != "free"} == {4}
    odds = {
        arm[:2]: row["value"]
        for arm, rows in found.items()
        for row in rows
        if (row["measure"], row["step"]) == ("refusal_log_odds", 4)
    }
    assert len(set(odds.values())) == len(odds), "every model is another one"


def test_regions_of_utility_sets_stand_in_the_place_of_the_region(tmp_path):
    """Set back to the aligned model, the region of the second utility set is all of it; the first one is empty."""
    backbone = tiny_backbone("llama3")
    everything, nothing = (all_weights(backbone, inside) for inside in (True, False))
    region, utility = some_units(backbone), [nothing, everything]
    planned = constraint_arms(region, ("rewind",), ("utility",), 3, utility=utility)
    assert planned == [("free", "none", 0), ("rewind", "region", 0), ("rewind", "utility", 2)]
    rows = dict(job(backbone, region, utility=utility).run(planned, Journal(tmp_path / "journal", "plan")))
    changed = [rows[arm][-1]["n_changed"] for arm in planned]
    assert changed[2] == 0 < changed[1] < changed[0]


def test_rewinding_everything_gives_the_aligned_model(tmp_path):
    backbone = tiny_backbone("llama3")
    region = all_weights(backbone, True)
    planned = constraint_arms(region, ("rewind",), (), 0)
    rows = dict(job(backbone, region).run(planned, Journal(tmp_path / "journal", "plan")))
    kl = [row for row in rows[planned[1]] if row["measure"] == "kl"]
    assert {row["value"] for row in kl} == {0.0}
    assert {row["n_changed"] for row in kl} == {0}


@pytest.mark.slow
def test_an_interrupted_job_goes_on_with_the_same_bits(tmp_path, monkeypatch):
    region = some_units(tiny_backbone("llama3"))
    planned = constraint_arms(region, ARMS, ("random",), 1)
    whole = list(job(tiny_backbone("llama3"), region).run(planned, Journal(tmp_path / "a", "plan")))
    original, calls = Constraint._trained, []

    def stopped(self, arm, journal):
        calls.append(arm)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self, arm, journal)

    monkeypatch.setattr(Constraint, "_trained", stopped)
    with pytest.raises(KeyboardInterrupt):
        list(job(tiny_backbone("llama3"), region).run(planned, Journal(tmp_path / "b", "plan")))
    again = list(job(tiny_backbone("llama3"), region).run(planned, Journal(tmp_path / "b", "plan")))
    assert again == whole
    assert len(calls) == 2 + 3, "only the arms that were not finished are trained again"


@pytest.mark.slow
def test_training_from_the_base_teaches_refusals_and_leaves_the_aligned_model(tmp_path):
    backbone, other = tiny_backbone("llama3"), tiny_backbone("llama3", seed=1)
    marks, before = fingerprint(backbone), {where: w.detach().clone() for where, w in other.weights()}
    region = some_units(backbone)
    plan = {
        "name": "teach", "attack": "refuse", "start": "base", "steps": 20, "batch": 4, "learning_rates": [0.01],
        "every": 0, "longest": 200, "arms": ["only"], "restore": {}, "controls": ["change"], "draws": 1,
    }  # fmt: skip
    table = constrain(
        backbone, before, region, [], responses("fraud", "weapons", "everyday"), ROLES, plan, 0,
        dict.fromkeys(("backbone", "method", "selection", "refinement", "name"), "x"), tmp_path / "journal",
        batch_size=4, max_new_tokens=4,
    ).to_pandas()  # fmt: skip
    assert fingerprint(backbone) == marks
    values = table.set_index(["arm", "control", "step", "measure", "evaluated"])["value"]
    assert values["free", "none", 0, "kl", "harmful"] > 0, (
        "it starts from the base, not from the aligned model"
    )
    for arm in (("free", "none"), ("only", "region"), ("only", "change")):
        assert (
            values[(*arm, 20, "refusal_nll", "harmful")] < values["free", "none", 0, "refusal_nll", "harmful"]
        )
    changed = table.set_index(["arm", "control", "step"])["n_changed"]
    assert set(changed["free", "none", 0]) == {0}
    assert set(table[table["measure"] == "task_loss"]["evaluated"]) == {"harmful"}, (
        "it is taught harmful prompts"
    )
    assert 0 < changed["only", "region", 20].max() <= region.n_selected
