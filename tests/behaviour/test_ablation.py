"""An ablation job measures every arm, resumes where it was, and leaves the model as it was."""

import json

import numpy as np
import pytest

from safety_regions.behaviour.ablation import Plan, Regions, arms
from safety_regions.behaviour.edit import fingerprint, n_writing, without_direction
from safety_regions.behaviour.job import ablate, identification
from safety_regions.behaviour.journal import Journal
from safety_regions.behaviour.measures import Ruler, held_out
from safety_regions.errors import StudyError
from safety_regions.formats.contracts import ABLATED, ANSWERS
from safety_regions.formats.region import Region
from safety_regions.scoring.states import difference_of_means
from tests.behaviour.regions import some_units
from tests.behaviour.responses import ROLES, answered, both_splits
from tests.tiny import tiny_backbone

CONTROLS = ("random", "matched", "magnitude", "change", "utility", "other", "core", "private", "direction")
PLAN = Plan({"zero": [1.0], "base": [0.5, 1.0], "transplant": [1.0]}, CONTROLS, draws=3, generated=1)

FEW = PLAN._replace(operations={"transplant": [1.0]}, draws=1)
SMALL = Plan({"zero": [1.0]}, ("random", "core"), draws=2, generated=1)


def study(granularity="weight", scope="matrix"):
    backbone, other = tiny_backbone("llama3"), tiny_backbone("llama3", seed=1)
    before = {where: weight.detach().clone() for where, weight in other.weights()}
    regions = [some_units(backbone, granularity, scope, seed=seed) for seed in range(3)]
    return backbone, before, Regions(regions[0], {"everyday": regions[1]}, {"weapons": regions[2]})


def run(backbone, before, regions, journal, plan=PLAN):
    limits = {"batch_size": 4, "max_new_tokens": 4}
    tables = ablate(backbone, before, regions, both_splits(), ROLES, plan, journal, **limits)
    return tables[ABLATED].to_pandas()


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """The measurements of a region of weights."""
    return run(*study(), tmp_path_factory.mktemp("ablation") / "journal")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("granularity", "scope"),
    [("weight", "row"), ("neuron", "matrix"), ("head", "global"), ("layer", "global"), ("rank", "matrix")],
)
def test_every_arm_is_measured_and_the_model_comes_back(tmp_path, granularity, scope):
    backbone, before, regions = study(granularity, scope)
    marks, plan = fingerprint(backbone), FEW if granularity == "rank" else PLAN
    table = run(backbone, before, regions, tmp_path / "journal", plan)
    assert fingerprint(backbone) == marks
    planned = arms(regions, plan)
    found = table[["operation", "dose", "control", "of", "draw"]].drop_duplicates()
    assert [tuple(row) for row in found.itertuples(index=False)] == [arm[:5] for arm in planned]
    kinds = set(found["control"])
    layers, ranks = granularity == "layer", granularity == "rank"
    assert kinds >= {"none", "region", "random", "utility", "other"}
    assert ({"magnitude", "change", "direction"} <= kinds) is not ranks
    layers = layers or ranks
    assert ("matched" in kinds) is not layers
    assert ({"core", "core_part", "private", "private_part"} <= kinds) is not layers
    generated = {
        tuple(row) for row in table[table["measure"] == "refused"][found.columns].itertuples(index=False)
    }
    assert generated == {arm[:5] for arm in planned if arm.generated}
    assert not (tmp_path / "journal").exists()


@pytest.mark.slow
def test_controls_have_as_many_weights_as_the_region(table):
    sizes = table.groupby("control", observed=True)["n_weights"].unique()
    for control in ("random", "matched", "magnitude", "change"):
        assert sizes[control].tolist() == sizes["region"].tolist()
    assert sizes["none"].tolist() == [0]
    assert sizes["core"].tolist() == sizes["core_part"].tolist()
    assert sizes["core"][0] + sizes["private"][0] == sizes["region"][0]


@pytest.mark.slow
def test_unchanged_models_are_the_aligned_and_the_base_model(table):
    none = table[table["control"] == "none"]
    kl = none[none["measure"] == "kl"].groupby(["operation"], observed=True)["value"].mean()
    assert kl["scale"] == 0.0
    assert kl["transplant"] > 0.0


@pytest.mark.slow
def test_the_model_without_the_direction_is_one_model_beside_every_operation(table):
    """It is the orthogonalised model of the difference of means of the prompts that are not held out."""
    rows = table[table["control"] == "direction"]
    assert set(zip(rows["operation"], rows["dose"], strict=True)) == {
        ("zero", 1.0),
        ("base", 0.5),
        ("base", 1.0),
    }
    per_arm = [
        part.drop(columns=["operation", "dose"]).reset_index(drop=True)
        for _, part in rows.groupby(["operation", "dose"], observed=True)
    ]
    assert all(part.equals(per_arm[0]) for part in per_arm)
    backbone, responses = study()[0], both_splits()
    assert rows["n_weights"].unique().tolist() == [n_writing(backbone)]
    held = held_out(backbone, responses, ROLES)
    ruler = Ruler(backbone, held, batch_size=4, max_new_tokens=4)
    given = identification(backbone, responses, ROLES)
    assert {role: len(samples) for role, samples in given.items()} == {"harmful": 6, "ordinary": 3}
    assert all(sample.prompt_id.endswith("-i") for samples in given.values() for sample in samples)
    r = difference_of_means(backbone, given["harmful"], given["ordinary"], 4)
    with without_direction(backbone, r):
        expected = {(v.prompt_id, v.measure): v.value for v in ruler.forward()}
    found = per_arm[0].set_index(["prompt_id", "measure"])["value"]
    assert all(found[key] == pytest.approx(value, rel=1e-4, abs=1e-5) for key, value in expected.items())
    assert max(value for (_, measure), value in expected.items() if measure == "kl") > 1e-4


def test_a_family_with_norms_behind_has_no_model_without_the_direction(tmp_path, capsys):
    backbone = tiny_backbone("gemma2")
    regions = Regions(some_units(backbone), {}, {})
    table = run(backbone, None, regions, tmp_path / "journal", Plan({"zero": [1.0]}, ("direction",), 0, 0))
    assert set(table["control"]) == {"none", "region"}
    assert "control direction: left out" in capsys.readouterr().out


def test_a_direction_needs_prompts_that_are_not_held_out():
    with pytest.raises(StudyError, match="controls: direction: found no harmful prompt that is not held out"):
        identification(tiny_backbone("llama3"), answered(), ROLES)


def test_an_interrupted_job_goes_on_where_it_was(tmp_path, monkeypatch):
    whole = run(*study(), tmp_path / "journal", SMALL)
    calls, forward = [], Ruler.forward

    def counted(ruler):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return forward(ruler)

    monkeypatch.setattr(Ruler, "forward", counted)
    backbone, before, regions = study()
    with pytest.raises(KeyboardInterrupt):
        run(backbone, before, regions, tmp_path / "journal", SMALL)
    with (tmp_path / "journal").open("a") as file:
        file.write('{"arm": ["zero", 1.0, "cut o')  # the job was killed while it wrote
    calls[:] = [0] * 5
    assert run(*study(), tmp_path / "journal", SMALL).equals(whole)
    assert len(calls) - 5 == len(arms(regions, SMALL)) - 4


@pytest.mark.slow
def test_generated_answers_are_kept_also_of_arms_from_the_journal(tmp_path, monkeypatch):
    backbone, before, regions = study()
    limits = {"batch_size": 4, "max_new_tokens": 4}
    job = (backbone, before, regions, answered(), ROLES, SMALL, tmp_path / "journal")
    whole = ablate(*job, **limits)[ANSWERS].to_pandas()
    monkeypatch.setattr(Journal, "remove", lambda journal: None)
    ablate(*job, **limits)
    assert ablate(*job, **limits)[ANSWERS].to_pandas().equals(whole)
    generated = [arm for arm in arms(regions, SMALL) if arm.generated]
    assert len(whole) == len(generated) * 12, "twelve held-out prompts"
    assert (whole["answer"].str.len() > 0).any()


@pytest.mark.slow
def test_a_journal_of_another_plan_is_not_used(tmp_path):
    (tmp_path / "journal").write_text("another plan\n" + json.dumps({"arm": [], "result": {}}) + "\n")
    assert len(run(*study(), tmp_path / "journal", SMALL)) > 0


def test_one_set_has_no_core(tmp_path):
    _, _, regions = study()
    alone = regions._replace(other={})
    assert not {"core", "private", "other"} & {arm.control for arm in arms(alone, PLAN)}


def test_an_empty_region_is_measured_without_controls():
    _, _, regions = study()
    empty = Region.pack({w: np.zeros(s, bool) for w, s in regions.own.shapes.items()}, regions.own.metadata)
    kinds = {arm.control for arm in arms(Regions(empty, {}, {}), PLAN)}
    assert kinds == {"none", "region"}
