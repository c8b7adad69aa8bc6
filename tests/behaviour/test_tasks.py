"""Tasks of lm-eval: a local task on a tiny model, beside a literal twin, and as a measure of an ablation job."""

import json

import pytest
import torch

from safety_regions.behaviour.ablation import Plan, Regions
from safety_regions.behaviour.job import ablate
from safety_regions.behaviour.tasks import Tasks
from safety_regions.errors import StudyError
from safety_regions.formats.contracts import ABLATED
from tests.behaviour.regions import some_units
from tests.behaviour.responses import ROLES, answered
from tests.tiny import tiny_backbone

TASK = """
task: weather
dataset_path: json
dataset_kwargs: {data_files: {test: %s}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
DOCUMENTS = [
    {"question": f"Day {day}. The sky is", "choices": ["blue", "grey at noon", "red"], "answer": day % 3}
    for day in range(12)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("tasks")
    data = found / "weather.jsonl"
    data.write_text("".join(json.dumps(document) + "\n" for document in DOCUMENTS), encoding="utf-8")
    (found / "weather.yaml").write_text(TASK % data, encoding="utf-8")
    return found


def literal(backbone, document) -> float:
    """Whether the right choice is the most likely continuation."""
    sums = []
    for choice in document["choices"]:
        context, whole = (
            backbone.tokenizer(text, add_special_tokens=False)["input_ids"]
            for text in (document["question"], f"{document['question']} {choice}")
        )
        with torch.no_grad():
            log_p = backbone.model(torch.tensor([whole])).logits[0].double().log_softmax(-1)
        sums.append(sum(log_p[i - 1, whole[i]].item() for i in range(len(context), len(whole))))
    return float(sums.index(max(sums)) == document["answer"])


@pytest.mark.slow
def test_a_local_task_is_scored_like_its_definition(folder):
    backbone = tiny_backbone("llama3")
    tasks = Tasks(backbone, {"weather": None}, folder, batch_size=2)
    values = tasks.measure()
    assert [value.value for value in values] == [literal(backbone, document) for document in DOCUMENTS]
    assert values[3][:3] == ("weather-3", "task-weather", "task-weather")
    assert 0 < sum(value.value for value in values) < len(values), "a task that tells models apart"
    assert tasks.measure() == values
    [few] = [Tasks(backbone, {"weather": 5}, folder, batch_size=2).measure()]
    assert few == values[:5]


@pytest.mark.slow
def test_tasks_are_measured_where_answers_are_generated(folder, tmp_path):
    backbone = tiny_backbone("llama3")
    plan = Plan({"zero": [1.0]}, ("random",), 2, 1, {"weather": None}, str(folder))
    regions = Regions(some_units(backbone, "weight", "matrix"), {}, {})
    limits = {"batch_size": 4, "max_new_tokens": 4}
    before = {where: weight.clone() for where, weight in backbone.weights()}
    tables = ablate(backbone, None, regions, answered(), ROLES, plan, tmp_path / "journal", **limits)
    table = tables[ABLATED].to_pandas()
    of_task = table[table["measure"] == "task-weather"].groupby(["control", "draw"], observed=True)["value"]
    assert dict(of_task.size()) == {("none", 0): 12, ("region", 0): 12, ("random", 1): 12}
    unchanged = table[(table["measure"] == "task-weather") & (table["control"] == "none")]["value"]
    assert unchanged.tolist() == [literal(backbone, document) for document in DOCUMENTS]
    assert all(torch.equal(before[where], weight) for where, weight in backbone.weights())


def test_an_unknown_task_and_a_missing_library_are_named(folder, monkeypatch):
    with pytest.raises(StudyError, match=r"tasks: found 'rain'; expected one task of lm-eval"):
        Tasks(tiny_backbone("llama3"), {"rain": None}, folder, batch_size=2)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(StudyError, match=r"no library lm-eval.*pip install safety-regions\[lm-eval\]"):
        Tasks(tiny_backbone("llama3"), {"weather": None}, folder, batch_size=2)
