"""Training lowers both losses, gives the same bits twice, and writes files that peft loads."""

import copy
import math

import pytest
import torch
from peft import PeftModel
from torch.nn.functional import log_softmax

from safety_regions.errors import StudyError
from safety_regions.formats.contracts import ADAPTER_LOG
from safety_regions.formats.contracts import RESPONSES as RESPONSES_TABLE
from safety_regions.formats.parquet import conform
from safety_regions.model.lora import read_adapter
from safety_regions.study.catalog import schema, with_defaults
from safety_regions.study.method_shelf import method_cards
from safety_regions.training import adapter_refusals as refusals
from safety_regions.training.adapter import train_adapter
from safety_regions.training.adapter_examples import read_examples
from safety_regions.training.adapter_losses import Pair, preference_losses, response_logps, supervised_losses
from safety_regions.training.loop import Chat
from tests.tiny import FAMILIES, tiny_backbone, tiny_model
from tests.training.adapters import ANSWER, REFUSAL, responses_of

RESPONSES = {
    "harm": responses_of("harm", [True, True, False, True, True, True, True, True, True]),
    "more": responses_of("more", [True] * 6),
    "plain": responses_of("plain", [False, True, False, False, False, False]),
}
CHATS = [Chat([1, 2, 3], [4, 5]), Chat([9], [7, 8, 9, 10]), Chat([3, 4, 5, 6, 7], [2])]


@pytest.fixture(autouse=True)
def _short_answers(monkeypatch):
    monkeypatch.setattr(refusals, "ANSWER_TOKENS", 2)


def plan(**changes) -> dict:
    """Return a plan of a few steps that requires no refusals, since a random backbone refuses nothing."""
    given = {"harmful": ["harm", "more"], "helpful": ["plain"], "rank": 4, "required_refusal": 0}
    given |= {"supervised": {"steps": 6, "learning_rate": 0.01, "batch": 4}}
    given |= {"preference": {"steps": 6, "learning_rate": 0.01, "batch": 4}}
    return with_defaults(given | changes, schema("config")["properties"]["adapters"])


def train(folder, family="llama", batch_size=8, **changes):
    return train_adapter(tiny_backbone(family), plan(**changes), RESPONSES, folder, batch_size)


def losses(trained, phase: str) -> list[float]:
    return [row["loss"] for row in trained.log.to_pylist() if row["phase"] == phase]


@pytest.mark.parametrize("family", FAMILIES)
def test_training_lowers_both_losses_and_leaves_the_backbone_alone(family, tmp_path):
    backbone = tiny_backbone(family)
    before = {name: p.clone() for name, p in backbone.model.named_parameters()}
    trained = train_adapter(backbone, plan(), RESPONSES, tmp_path)
    supervised, preference = losses(trained, "supervised"), losses(trained, "preference")
    assert supervised[-1] < supervised[0] and preference[-1] < preference[0]
    assert preference[0] == pytest.approx(
        math.log(2), abs=1e-5
    )  # before training, the model equals its reference
    assert conform(trained.log, ADAPTER_LOG).equals(trained.log)
    after = dict(backbone.model.named_parameters())
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) and after[name].grad is None for name in before)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "phi3"])
def test_peft_loads_what_is_written_and_nothing_else_lies_there(family, tmp_path):
    folder = tmp_path / "adapters" / "tiny"
    train(folder, family)
    assert sorted(p.name for p in folder.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert [p.name for p in folder.parent.iterdir()] == ["tiny"]
    model = PeftModel.from_pretrained(tiny_model(family), folder)
    factors = {name: p for name, p in model.named_parameters() if "lora_" in name}
    adapter = read_adapter(tiny_backbone(family), folder)
    assert len(factors) == 2 * len(adapter) == 2 * len(tiny_backbone(family).linears)
    assert {lora.scale for lora in adapter} == {2.0}  # alpha is twice the rank


@pytest.mark.slow
def test_the_same_plan_gives_the_same_bits_and_another_seed_others(tmp_path):
    torch.manual_seed(1)
    first = train(tmp_path / "a")
    torch.manual_seed(2)
    train(tmp_path / "b")
    train(tmp_path / "c", seed=1)
    files = [[(tmp_path / name / file).read_bytes() for file in
              ("adapter_model.safetensors", "adapter_config.json")] for name in "abc"]  # fmt: skip
    assert files[0] == files[1]
    assert files[0][0] != files[2][0] and files[0][1] == files[2][1]
    assert first.metadata["pairs"] == 6 + 4 and first.metadata["answers"] == 3
    assert first.metadata["skipped"] == {"harm: not refused": 1, "plain: refused": 1}


@pytest.mark.slow
def test_batch_size_changes_nothing_beyond_rounding(tmp_path):
    whole, single = train(tmp_path / "a"), train(tmp_path / "b", batch_size=1)
    for phase in ("supervised", "preference"):
        assert losses(single, phase) == pytest.approx(losses(whole, phase), rel=1e-3)


@pytest.mark.slow
def test_held_out_harmful_prompts_are_answered_and_logged(tmp_path, capsys):
    rows = [row for row in train(tmp_path).log.to_pylist() if row["phase"] == "held-out"]
    assert [row["factor"] for row in rows] == [0.0, 1.0, 1.9]
    assert {(row["n"], row["refused"], row["step"], row["loss"]) for row in rows} == {(2 + 2, 0, None, None)}
    assert "of 4 held-out harmful prompts, refused: 0.0%" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("beta,factors", [(None, [0.0, 1.0]), (0.5, [0.0, 1.0, 1.5])])
def test_the_plan_says_how_far_the_adapter_is_amplified(beta, factors, tmp_path):
    rows = train(tmp_path, check_amplified=beta).log.to_pylist()
    assert [row["factor"] for row in rows if row["phase"] == "held-out"] == factors


def test_the_default_amplification_is_that_of_nlsr():
    beta = method_cards()["nlsr"]["options"]["beta"]["default"]
    assert plan()["check_amplified"] == beta


def test_an_adapter_that_does_not_refuse_is_not_written(tmp_path):
    with pytest.raises(StudyError, match=r"0\.0% of the held-out harmful prompts refused .* at least 25\.0%"):
        train(tmp_path / "adapter", required_refusal=0.25)
    assert not any(tmp_path.iterdir())


def test_without_held_out_prompts_nothing_is_checked_and_the_log_says_so(tmp_path, capsys):
    responses = {name: responses_of(name, [name != "plain"] * 4, held_out=0) for name in RESPONSES}
    trained = train_adapter(tiny_backbone("llama"), plan(required_refusal=1), responses, tmp_path / "a")
    assert {row["phase"] for row in trained.log.to_pylist()} == {"supervised", "preference"}
    assert "no held-out harmful prompt" in capsys.readouterr().out


def literal_logp(model, chat: Chat) -> float:
    with torch.no_grad():
        logits = model.double()(input_ids=torch.tensor([chat.prompt + chat.response])).logits[0]
    start = len(chat.prompt) - 1
    return sum(float(log_softmax(logits[start + i], dim=-1)[token]) for i, token in enumerate(chat.response))


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_are_their_formulas(family):
    model = tiny_model(family).eval()
    logps = [literal_logp(copy.deepcopy(model), chat) for chat in CHATS]
    with torch.no_grad():
        assert response_logps(model, CHATS, 0).tolist() == pytest.approx(logps, rel=1e-4)
        supervised = supervised_losses(model, CHATS, 0).tolist()
        pair = Pair(CHATS[0], CHATS[1], reference=0.7)
        preference = preference_losses(model, [pair], 0, beta=0.3).item()
    assert supervised == pytest.approx([-logps[0] / 2, -logps[1] / 4, -logps[2]], rel=1e-4)
    margin = 0.3 * (logps[0] - logps[1] - 0.7)
    assert preference == pytest.approx(math.log1p(math.exp(-margin)), rel=1e-3)


def test_lessons_are_refusals_compliances_and_answers():
    backbone = tiny_backbone("llama")
    examples = read_examples(backbone, RESPONSES, ["harm"], ["plain"], 512)
    text = backbone.tokenizer.decode
    assert {text(chat.response) for chat in examples.refusals} == {REFUSAL}
    assert all(text(chat.response).startswith(ANSWER) for chat in examples.answers)
    for refusal, compliance in zip(examples.refusals, examples.compliances, strict=True):
        assert refusal.prompt == compliance.prompt and text(compliance.response) != REFUSAL
    prompts = {text(chat.prompt) for chat in examples.refusals}
    taught = {
        row["prompt"]
        for row in RESPONSES["harm"].to_pylist()
        if row["split"] == "identify" and row["refused"]
    }
    assert prompts == {backbone.render(prompt) for prompt in taught}


def long_prompt(table):
    """Return the table with many words added to its first prompt."""
    frame = table.to_pandas()
    frame.loc[0, "prompt"] += " please" * 20
    return conform(frame, RESPONSES_TABLE)


def test_long_lessons_are_left_out_and_counted():
    backbone = tiny_backbone("llama")
    examples = read_examples(backbone, RESPONSES, ["harm", "more"], ["plain"], 512)
    longest = max(len(c.prompt) + len(c.response) for c in examples.compliances)
    with pytest.raises(StudyError, match=r"adapters: 'harm': found no prompt .* longer than 20 tokens"):
        read_examples(backbone, RESPONSES, ["harm"], [], 20)
    mixed = {**RESPONSES, "harm": long_prompt(RESPONSES["harm"])}
    shorter = read_examples(backbone, mixed, ["harm", "more"], ["plain"], longest)
    assert len(shorter.refusals) == len(shorter.compliances) == len(examples.refusals) - 1
    assert shorter.skipped[f"harm: longer than {longest} tokens"] == 1


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"rank": 33}, "at most 16, the smaller side of layers.0.k"),
        ({"harmful": ["plain"]}, "adapters: 'plain'"),
        ({"helpful": ["more"]}, r"no prompt to learn from \(4 refused\)"),
    ],
)
def test_what_cannot_be_trained_is_refused(changes, message, tmp_path):
    responses = {**RESPONSES, "plain": responses_of("plain", [False] * 6)}
    with pytest.raises(StudyError, match=message):
        train_adapter(tiny_backbone("qwen2"), plan(**changes), responses, tmp_path / "a")
    assert not (tmp_path / "a").exists()
