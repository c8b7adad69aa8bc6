"""The answers of the first page must be what the rules find in the cells, with nothing added and without baselines."""

import pandas as pd
import pytest

from safety_regions.report.behaviour import ONLY_RANDOM, Beyond, conclusion, finding
from safety_regions.report.pages.answers import CHANGED, QUESTIONS, REMARKS, UNKNOWN, answers, asked_for
from safety_regions.report.verdict.measure import measure
from safety_regions.report.verdict.sentences import CHAPTERS, ORDINARY, finding_of
from safety_regions.study.catalog import schema
from tests.report import synthetic_tables as synthetic
from tests.report.synthetic_report import BACKBONES, NAMES, effect, rates_of, verdicts_of

NOTHING = pd.DataFrame()
RATES = rates_of()


@pytest.fixture(scope="module")
def verdicts():
    return verdicts_of()


def test_each_cell_is_listed_under_what_the_rules_find_in_it(verdicts):
    found = answers(verdicts, NOTHING, RATES)
    assert [answer.backbone for answer in found] == list(BACKBONES)
    for answer in found:
        for line in answer.lines:
            chapter, listed = QUESTIONS[line.question], []
            for said, names in line.found:
                for name in names.split(", "):
                    listed.append(name)
                    raw = (verdicts["refinement"] == "raw") & (verdicts["method"] == name)
                    [record] = verdicts[raw & (verdicts["backbone"] == answer.backbone)].to_dict("records")
                    assert finding_of(chapter, record) == said
            assert sorted(listed) == ["snip", "wanda"]
        asked = [line.question for line in answer.lines]
        assert asked == list(QUESTIONS)[:2], "this study has neither crossed responses nor a plant"


def test_the_strongest_findings_come_first(verdicts):
    frame = verdicts[verdicts["backbone"] == "llama"].assign(
        normalised=[0.05, 0.05, 0.95, 0.95], normalised_se=0.01
    )
    [first, _] = answers(frame, NOTHING, RATES)[0].lines
    assert first.found == [
        ("as similar as two halves of one set", "snip"),
        ("little or nothing shared beyond the floor", "wanda"),
    ]


def test_every_rule_of_an_answer_has_words_of_its_own():
    for chapter in QUESTIONS.values():
        said = [rule.finding for rule in chapter]
        assert all(said) and len(set(said)) == len(said)
        assert chapter in CHAPTERS
    assert UNKNOWN in {rule.finding for rule in ORDINARY}


def test_a_part_about_harm_is_never_claimed_without_its_limits(verdicts):
    for value, claimed in ((0.5, True), (-0.5, False)):
        frame = verdicts.assign(normalised_ordinary=value, normalised_ordinary_se=0.01)
        line = answers(frame, NOTHING, RATES)[0].lines[1]
        assert ("more than with ordinary prompts" in dict(line.found)) is claimed
        assert (list(line.remarks) == [REMARKS["more than with ordinary prompts"]]) is claimed


def test_a_study_without_floors_is_compared_with_chance_only():
    found = answers(verdicts_of(with_frames=False), NOTHING, RATES)[0]
    assert found.lines[0].found == [("compared with chance only", "wanda, snip")]
    assert [line.question for line in found.lines] == list(QUESTIONS)[:1]


def test_baselines_answer_nothing(verdicts):
    for answer in answers(verdicts, NOTHING, RATES, data_free=["wanda"]):
        assert {names for line in answer.lines for _, names in line.found} == {"snip"}


def test_answers_rest_on_the_numbers_of_raw_regions(verdicts):
    for answer in answers(verdicts, NOTHING, RATES):
        one = verdicts[(verdicts["backbone"] == answer.backbone) & (verdicts["refinement"] == "raw")]
        ends = [f"{one['iou'].min():.3f}", f"{one['iou'].max():.3f}"]
        assert f"IoU of two sets {' to '.join(dict.fromkeys(ends))} (chance 0.0" in answer.basis[0]
        assert answer.basis[0].startswith("Raw regions: ") and "; 3 pairs of sets; " in answer.basis[0]
        assert f"up to {100 * one['shared'].max():.0f} %" in answer.basis[0]


def test_how_often_a_backbone_refuses_is_said_first(verdicts):
    rates = RATES.assign(refusal_rate=[0.25, 0.9, 0.75, 0.9, 0.5, 0.9, 0.0, 0.9] * 2)
    [llama, _] = answers(verdicts, NOTHING, rates)
    assert llama.basis[1] == "It refuses 25 to 75 % of the prompts of harmful sets and 0 % of ordinary ones."
    given = answers(verdicts, NOTHING, RATES.assign(origin="dataset"))
    assert given[0].basis[1] == "Its responses are not its own."
    harmful = RATES[RATES["role"] == "identification"]
    assert "ordinary" not in answers(verdicts, NOTHING, harmful)[0].basis[1]


def test_few_layers_are_not_in_the_range_of_the_iou(verdicts):
    layers = verdicts["method"] == "snip"
    frame = verdicts.assign(whole_layers=layers, n_units=verdicts["n_units"].where(~layers, 4))
    frame.loc[layers, "iou"] = 1.0
    basis = answers(frame, NOTHING, RATES)[0].basis[0]
    assert "1.000" not in basis and f"IoU of two sets {frame['iou'][0]:.3f} (chance" in basis


def test_two_selections_of_a_method_are_told_apart(verdicts):
    more = pd.concat([verdicts, verdicts[verdicts["method"] == "snip"].assign(selection="row-0.01")])
    named = ", ".join(names for _, names in answers(more, NOTHING, RATES)[0].lines[0].found)
    assert sorted(named.split(", ")) == ["snip row-0.01", "snip row-0.05", "wanda"]


def test_a_study_without_raw_regions_is_answered_by_its_first_refinement(verdicts):
    refined = verdicts[verdicts["refinement"] == "minus-everyday"]
    assert answers(refined, NOTHING, RATES)[0].basis[0].startswith("Minus-everyday regions: ")


def test_cores_crossed_responses_and_plants_are_answered_where_they_are_measured():
    _, iou, sizes = synthetic.gathered([("llama", "snip", "row-0.05", "raw")], len(NAMES))
    cell = "llama/snip/row-0.05/raw"
    beside = {
        "crossed": {cell: synthetic.crossed(NAMES, prompts=0.3, responses=0.6)},
        "recovery": {"llama": synthetic.recovery({"snip": 0.9, "random": 0.5}, NAMES, truths={"llama": 0.0})},
        "cores": {cell: synthetic.cores(3)},
    }
    [answer] = answers(measure(iou, sizes, NAMES, **beside), NOTHING, RATES)
    said = {line.question: line.found for line in answer.lines}
    assert list(said) == list(QUESTIONS)
    assert [finding for line in list(QUESTIONS)[2:4] for finding, _ in said[line]] == [
        "a core, smaller than that of mixed prompts",
        "the responses, at least as much as the prompts",
    ]


@pytest.mark.parametrize(
    "controls, said",
    [
        ({"more": ["random", "magnitude"], "not_more": [], "unknown": []}, "more than every control"),
        ({"more": ["random", "matched"], "not_more": [], "unknown": []}, ONLY_RANDOM),
        ({"more": ["random"], "not_more": ["magnitude"], "unknown": []}, "not more than every control"),
        ({"more": ["magnitude"], "not_more": [], "unknown": ["random"]}, "no control with enough draws"),
        ({"more": [], "not_more": ["random"], "unknown": ["matched"]}, "not more than every control"),
        ({"more": [], "not_more": [], "unknown": []}, "no control with enough draws"),
    ],
)
def test_effects_are_more_only_beyond_every_control(verdicts, controls, said):
    row = effect(**{kind: ", ".join(names) for kind, names in controls.items()})
    assert finding(row) == said
    sentence = conclusion(Beyond(**controls))
    assert (said == "more than every control") is (
        sentence == "the effect is larger than that of every control"
    )
    assert (said == ONLY_RANDOM) is sentence.endswith("; there is no other control")
    lines = answers(verdicts, pd.DataFrame([row]), RATES)[0].lines
    assert lines[-1].question == CHANGED and lines[-1].found == [(said, "snip (base 1)")]
    assert CHANGED not in [line.question for line in answers(verdicts, pd.DataFrame([row]), RATES)[1].lines]


def test_what_a_study_leaves_out_is_a_key_of_the_config(verdicts):
    keys = schema("config")["properties"]
    bare = verdicts_of(with_frames=False)
    hints = [key for key, _ in asked_for(bare, changed=False)]
    assert {hint.partition(":")[0] for hint in hints} <= keys.keys()
    assert hints == ["floors: 5", "ceilings: true", "crossed: true", "label_permutations: 19", "behaviour"]
    assert [key for key, _ in asked_for(verdicts, changed=True)] == ["crossed: true"]
