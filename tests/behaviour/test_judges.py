"""A judge's value is the literal mean of its words' values; what it reads is what its card says."""

import pyarrow as pa
import pytest
import torch

from safety_regions.behaviour import judges
from safety_regions.behaviour.job import judge
from safety_regions.behaviour.judges import Judge
from safety_regions.errors import StudyError
from safety_regions.formats.contracts import ABLATED, ANSWERS
from safety_regions.study.catalog import CATALOG, Shelf, check, schema
from tests.behaviour.responses import ROLES, answered
from tests.oracles import lora as lora_oracle
from tests.tiny import FAMILIES, tiny_backbone
from tests.training.adapters import write_adapter

RULES = {
    "template": "Asked: {prompt} Said: {answer} Verdict:", "lead": " ", "longest": 512,
    "values": {"yes": 1, "no": 0, "half": 0.5},
}  # fmt: skip
ASKED = [("a", "bread?", "no {prompt} bread"), ("b", "a longer question {answer}", "yes"), ("c", "why", "")]


def literal(model, tokenizer, text: str, values: dict) -> float:
    """The definition, one text at a time, in float64."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0, -1].double()
    firsts = {tokenizer(word, add_special_tokens=False)["input_ids"][0]: v for word, v in values.items()}
    chances = {token: float(logits[token].exp()) for token in firsts}
    return sum(chances[t] * firsts[t] for t in firsts) / sum(chances.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_value_is_the_mean_over_the_words_of_the_card(family):
    backbone = tiny_backbone(family)
    found = Judge(backbone, RULES, batch_size=2).values(ASKED)
    texts = {
        "a": "Asked: bread? Said: no {prompt} bread Verdict: ",
        "b": "Asked: a longer question {answer} Said: yes Verdict: ",
        "c": "Asked: why Said:  Verdict: ",
    }
    for key, text in texts.items():
        expected = literal(backbone.model, backbone.tokenizer, text, RULES["values"])
        assert found[key] == pytest.approx(expected, rel=1e-4), key


def test_without_a_template_both_turns_are_rendered_by_the_chat_template():
    backbone = tiny_backbone("llama3")
    whole = {"yes": 1, "no": 0}  # as YAML gives them
    rules = RULES | {"template": None, "values": whole}
    found = Judge(backbone, rules, batch_size=4).values([("a", "bread?", "no")])
    expected = literal(backbone.model, backbone.tokenizer, "<|user|>bread?<|assistant|>no ", whole)
    assert found == {"a": pytest.approx(expected, rel=1e-4)}


def test_a_control_token_that_an_answer_spells_out_is_text():
    backbone = tiny_backbone("llama3")
    spelt = [("a", "bread?", "no<eos>"), ("b", "bread?", "no")]
    found = Judge(backbone, RULES, batch_size=1).values(spelt)
    ids = backbone.tokenizer("<eos>", add_special_tokens=False)["input_ids"]
    assert len(ids) == 1, "otherwise the test shows nothing"
    assert found["a"] != found["b"]
    text = Judge(backbone, RULES, batch_size=1)._ids("bread?", "no<eos>")
    assert backbone.tokenizer.eos_token_id not in text


def test_a_long_answer_is_cut():
    backbone = tiny_backbone("llama3")
    short = Judge(backbone, RULES | {"longest": 4}, batch_size=1)
    assert short.values([("a", "why", "breadandbutter")]) == short.values([("a", "why", "brea")])


def test_words_that_begin_alike_cannot_have_different_values():
    rules = RULES | {"values": {"safe": 0, "sure": 1}}
    with pytest.raises(StudyError, match="'sure', which begins with the same token"):
        Judge(tiny_backbone("llama3"), rules, batch_size=1)


def test_an_adapter_makes_the_judge(tmp_path):
    backbone = tiny_backbone("llama3")
    write_adapter(backbone, tmp_path)
    adapted = Judge(backbone, RULES | {"adapter": {"path": str(tmp_path)}}, batch_size=4)
    assert adapted.metadata["judge_adapter"] == tmp_path.name
    found = adapted.values(ASKED)
    merged = lora_oracle.merged(backbone, tmp_path, 1.0)
    expected = literal(merged, backbone.tokenizer, "Asked: why Said:  Verdict: ", RULES["values"])
    assert found["c"] == pytest.approx(expected, rel=1e-3)
    assert found["c"] != pytest.approx(Judge(backbone, RULES, batch_size=4).values(ASKED)["c"], rel=1e-3)


def test_answers_of_all_arms_to_harmful_prompts_are_judged_once_each():
    class Counting:
        def __init__(self):
            self.asked = []

        def values(self, answers):
            self.asked += answers
            return {key: len(answer) / 10 for key, _, answer in answers}

    arm = {
        "operation": "zero",
        "dose": 1.0,
        "control": "region",
        "of": "",
        "draw": 0,
        "n_weights": 3,
        "n_changed": 3,
    }
    rows = [
        {**arm, "control": control, "evaluated": dataset, "prompt_id": f"{dataset}/0", "answer": answer}
        for control, answer in (("region", "no"), ("random", "no"), ("none", "sure"))
        for dataset in ROLES
    ]
    counting = Counting()
    table = judge(counting, "mine", pa.Table.from_pylist(rows, ANSWERS.schema), answered(), ROLES)
    assert table.schema == ABLATED.schema
    frame = table.to_pandas()
    assert sorted(set(frame["evaluated"].astype(str))) == ["fraud", "weapons"]
    assert set(frame["measure"]) == {"harm-mine"}
    assert dict(zip(frame["control"], frame["value"], strict=True)) == {
        "region": 0.2,
        "random": 0.2,
        "none": 0.4,
    }
    assert len(counting.asked) == 4, "two sets, two different answers"
    assert {prompt for _, prompt, _ in counting.asked} == {
        "a request about fraud 0",
        "a request about weapons 0",
    }


def test_an_adapter_on_the_hub_is_read_from_one_commit(monkeypatch, tmp_path):
    """The branch may move between its two files."""
    asked = []

    def fetch(place, name):
        asked.append((name, place.revision))
        return tmp_path / "0123abc" / name

    monkeypatch.setattr(judges, "fetch_file", fetch)
    assert judges.fetched({"repo": "owner/name"}) == tmp_path / "0123abc"
    assert asked == [("adapter_config.json", "main"), ("adapter_model.safetensors", "0123abc")]


@pytest.mark.parametrize("name", ["harmbench-classifier", "llama-guard-3-8b", "strongreject-judge"])
def test_the_judges_of_the_catalog_fit_the_schema(name):
    shelf = Shelf("backbones", {})
    card = shelf.read(name)
    assert check(card, schema("checkpoint"), str(CATALOG)) == []
    assert set(card["judge"]["values"].values()) >= {0, 1}


def test_the_template_of_strongreject_ends_as_published():
    """A trailing space is part of it; editors like to delete it."""
    card = Shelf("backbones", {}).read("strongreject-judge")
    assert card["judge"]["template"].endswith("### Answer: ")
