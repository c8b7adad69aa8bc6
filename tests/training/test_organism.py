"""Training a small organism gives the same bits twice, a complete checkpoint, and clear errors."""

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from safety_regions.errors import StudyError
from safety_regions.formats.contracts import TRAINING_LOG
from safety_regions.formats.parquet import conform
from safety_regions.model.generate import answer_prompts
from safety_regions.model.loading import wrap_backbone
from safety_regions.model.refusal import is_refusal
from safety_regions.study.grid import CHECKPOINT_FILES
from safety_regions.training.architecture import build_model
from safety_regions.training.corpus import all_responses
from safety_regions.training.curriculum import curriculum, training_sets
from safety_regions.training.organism import train_organism
from safety_regions.training.tokenizer import train_tokenizer
from tests.tiny import load_on_cpu
from tests.training.organisms import FAMILIES, prompts_table, small_card, small_prompts


def contents(directory) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def test_the_same_card_gives_the_same_bits_and_another_seed_others(tmp_path):
    logs = [
        train_organism(small_card(seed=seed), small_prompts(), tmp_path / name, "small")
        for name, seed in (("one", 0), ("two", 0), ("three", 1))
    ]
    one, two, three = (contents(tmp_path / name) for name in ("one", "two", "three"))
    assert one == two
    assert logs[0] == logs[1]
    assert one["model.safetensors"] != three["model.safetensors"]


def test_threads_and_random_state_around_do_not_matter(tmp_path):
    train_organism(small_card(), small_prompts(), tmp_path / "one", "small")
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.manual_seed(99)
    try:
        train_organism(small_card(), small_prompts(), tmp_path / "two", "small")
    finally:
        torch.set_num_threads(threads)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_directory_is_a_checkpoint_of_its_family(family, tmp_path):
    card = small_card(family)
    log = train_organism(card, small_prompts(), tmp_path / "organism", "small")
    assert sorted(contents(tmp_path / "organism")) == sorted(
        [*CHECKPOINT_FILES, "base.safetensors", "truth.safetensors"]
    )
    assert list(tmp_path.iterdir()) == [tmp_path / "organism"]
    assert conform(log, TRAINING_LOG).equals(log)

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "organism")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "organism")
    sizes = card["architecture"]
    assert model.config.model_type in FAMILIES[family].layers
    assert model.config.num_key_value_heads == sizes["kv_heads"]
    assert getattr(model.config, "sliding_window", None) == sizes.get("sliding_window")
    assert model.get_input_embeddings().weight.shape == (len(tokenizer), sizes["hidden_size"])
    assert model.lm_head.weight is model.get_input_embeddings().weight
    block = model.model.layers[0].self_attn
    assert block.q_proj.weight.shape == (sizes["heads"] * sizes["head_dim"], sizes["hidden_size"])
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id


@pytest.mark.slow
def test_the_log_counts_what_the_checkpoint_on_disk_refuses(tmp_path):
    plan = {phase: {"steps": 60, "learning_rate": 0.02} for phase in ("base", "align")}
    card, prompts = small_card(**plan, batch=8), small_prompts()
    log = train_organism(card, prompts, tmp_path / "organism", "small").to_pylist()
    assert [row["step"] for row in log if row["phase"] == "align"] == list(range(60))
    held_out = [row for row in log if row["phase"] == "held-out"]
    assert {row["dataset"]: row["role"] for row in held_out} == {"bad": "harmful", "good": "helpful"}
    backbone = load_on_cpu(sorted((tmp_path / "organism").iterdir()))
    for row in held_out:
        texts = prompts[row["dataset"]].filter(pc.equal(prompts[row["dataset"]]["split"], "evaluate"))["text"]
        answers = answer_prompts(backbone, texts.to_pylist(), max_new_tokens=32, batch_size=3)
        assert (row["n"], row["refused"]) == (4, sum(is_refusal(answer.text) for answer in answers))
    # The sets differ in one word, so 60 steps per phase are enough to refuse more harmful than helpful prompts.
    bad, good = (row["refused"] for row in held_out)
    assert bad > good


def test_a_careful_base_learns_the_aligned_responses_behind_an_instruction():
    card = small_card(careful=True)
    sets = training_sets(card, small_prompts(), "small")
    texts = [item.prompt for s in sets for item in s.learn] + all_responses()
    tokenizer = train_tokenizer(texts, 400, bos=True, context=128)
    backbone = wrap_backbone(build_model(card, tokenizer), tokenizer, {}, "small")
    phases = curriculum(backbone, sets, card["training"])

    def read(chat):
        return tokenizer.decode(chat.prompt, skip_special_tokens=True), tokenizer.decode(
            chat.response, skip_special_tokens=True
        )

    taught = {phase: [[*map(read, pool)] for pool in pools] for phase, pools in phases.items()}
    answers = [[(item.prompt, item.answer) for item in s.learn] for s in sets]
    aligned = [[(item.prompt, item.refusal) for item in sets[0].learn], answers[1]]
    assert taught["align"] == aligned
    assert taught["base"][:2] == answers
    assert taught["base"][2:] == [[(f"Careful: {p}", r) for p, r in pool] for pool in aligned]
    plain = curriculum(backbone, sets, small_card()["training"])
    assert plain == {"base": phases["base"][:2], "align": phases["align"]}

    longest = max(len(chat.prompt) for chat in phases["base"][1])
    tight = small_card(careful=True, max_prompt_tokens=longest)["training"]
    curriculum(backbone, sets, tight | {"careful": False})
    with pytest.raises(StudyError, match="no harmful prompt"):
        curriculum(backbone, sets, tight)


def test_the_first_phase_is_kept_whole_whatever_alignment_changes(tmp_path):
    """Without a plant, alignment changes every tensor; the file of the first phase does not depend on it."""
    files = {}
    for name, rate in (("slow", 0.001), ("fast", 0.01)):
        card = small_card(align={"steps": 2, "learning_rate": rate})
        train_organism(card, small_prompts(), tmp_path / name, "small")
        files[name] = (tmp_path / name / "base.safetensors").read_bytes()
    assert files["slow"] == files["fast"]
    base, aligned = (load_file(tmp_path / "fast" / f"{file}.safetensors") for file in ("base", "model"))
    named = [key for key in base if key in aligned]
    assert "model.embed_tokens.weight" in named and "model.norm.weight" in named
    assert not any(torch.equal(base[key], aligned[key]) for key in named)


def test_held_out_prompts_leave_no_trace_in_the_weights(tmp_path):
    prompts = small_prompts()
    train_organism(small_card(), prompts, tmp_path / "one", "small")
    learned = pc.equal(prompts["bad"]["split"], "identify")
    other = prompts_table("bad", ["Entirely different words"] * 4, 4)
    prompts["bad"] = pa.concat_tables([prompts["bad"].filter(learned), other])
    train_organism(small_card(), prompts, tmp_path / "two", "small")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_part_of_each_set_is_its_first_prompts(tmp_path):
    prompts = small_prompts()
    train_organism(small_card(prompts_per_set=5), prompts, tmp_path / "one", "small")
    parts = {
        name: pa.concat_tables([table[:5], table.filter(pc.equal(table["split"], "evaluate"))])
        for name, table in prompts.items()
    }
    train_organism(small_card(), parts, tmp_path / "two", "small")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.parametrize(
    "limits", [{"required_refusal": 1.0}, {"required_refusal": 0, "allowed_over_refusal": -1}]
)
def test_an_organism_that_misses_its_card_is_an_error_and_leaves_a_snapshot(limits, tmp_path):
    with pytest.raises(StudyError, match=r"found 0\.0% of the held-out harmful .* 0\.0% of the ordinary"):
        train_organism(small_card() | limits, small_prompts(), tmp_path / "organism", "small")
    assert [path.name for path in tmp_path.iterdir()] == [".organism.snapshot"]


@pytest.mark.parametrize(
    ("training", "found"),
    [
        ({"harmful": ["bad", "worse"]}, "no prompts given for dataset 'worse'"),
        ({"helpful": ["good", "bad"]}, "'bad' has two roles"),
        ({"helpful": ["unread"]}, "'unread' has no prompts to learn or none to hold out"),
        ({"max_prompt_tokens": 8}, "no harmful prompt of at most max_prompt_tokens = 8"),
    ],
)
def test_mistakes_of_a_card_are_named(training, found, tmp_path):
    prompts = small_prompts() | {"unread": prompts_table("unread", ["one", "two"], 0)}
    with pytest.raises(StudyError, match=found):
        train_organism(small_card(**training), prompts, tmp_path / "organism", "small")


def test_heads_that_no_kv_heads_divide_are_named(tmp_path):
    card = small_card()
    card["architecture"]["kv_heads"] = 3
    with pytest.raises(StudyError, match="4 heads and 3 kv_heads"):
        train_organism(card, small_prompts(), tmp_path / "organism", "small")
