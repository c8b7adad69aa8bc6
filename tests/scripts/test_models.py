"""The scripts that load a model write responses, scores and an adapter of a tiny checkpoint on disk."""

import json

import pytest

from safety_regions.formats.contracts import (
    ADAPTER_LOG,
    PROMPTS,
    RESPONSES,
    TRAINING_LOG,
    USABLE,
    WEIGHT_SCORES,
)
from safety_regions.formats.parquet import read_metadata, read_table, write_table
from safety_regions.methods import load_method
from safety_regions.scoring.run import Job
from safety_regions.scoring.run import score as score_names
from safety_regions.scoring.samples import choose
from safety_regions.study.grid import CONVERTED_FILES
from safety_regions.study.method_shelf import method_cards
from safety_regions.units.names import parse_name
from tests.gguf_files import quantisable, write_gguf
from tests.model.test_responses import prompts_table
from tests.scripts.loading import load_script
from tests.tiny import byte_tokenizer, load_on_cpu, tiny_backbone, tiny_model
from tests.training.adapters import responses_of
from tests.training.organisms import small_prompts
from tests.training.test_adapter import RESPONSES as ANSWERS
from tests.training.test_adapter import plan
from tests.training.test_pretrained import card as pretrained_card

CARD = {"template": "native"}
WANDA = {name: rule["default"] for name, rule in method_cards()["wanda"]["options"].items()}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Return the files of a tiny checkpoint."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny_model("llama").save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return sorted(folder.iterdir())


def test_write_responses_answers_the_first_of_each_split(checkpoint, tmp_path):
    write_table(tmp_path / "set.parquet", prompts_table(("No.",) * 8), PROMPTS)
    out = tmp_path / "responses.parquet"
    load_script("write_responses")(
        tmp_path / "set.parquet", checkpoint, "tiny", CARD, 3, 1, "dataset", None, 5, 4, out
    )
    found = read_table(out, RESPONSES)
    assert found["prompt_id"].to_pylist() == ["set/0", "set/1", "set/2", "set/4"]
    assert read_metadata(out)["backbone"] == "tiny" and read_metadata(out)["max_new_tokens"] == 5
    assert read_metadata(out)["too_long"] == 0


@pytest.mark.slow
def test_score_writes_a_table_for_each_name(checkpoint, tmp_path):
    answers = responses_of("harm", [True] * 6)
    write_table(tmp_path / "harm.parquet", answers, RESPONSES)
    names, kept = ["harm.2", "harm~1", "harm.1", "harm", "harm.1~1m"], {"row": 1.0}
    out, sampled = (
        {n: tmp_path / "s" / f"{n}{end}" for n in names} for end in (".parquet", ".sample.parquet")
    )
    load_script("score")(
        outputs=out, sampled=sampled, labels={"backbone": "tiny", "label": "mine"}, card=CARD, checkpoint=checkpoint,
        base=[], before=[], method="wanda", options=WANDA, kept=kept, samples=3, keep={"harm": "refused"},
        responses=[tmp_path / "harm.parquet"], contrast=[], shared=[], usable=[], adapter=[],
        batch_size=2, memory_mb=4000, scratch=tmp_path,
    )  # fmt: skip
    for name, used in zip(names, (1, 3, 1, 3, 1), strict=True):
        path, parsed = out[name], parse_name(name)
        chosen = choose(parsed, {"harm": answers}, 3, {"harm": "refused"})
        job = Job(load_method("wanda"), WANDA, kept, 2)
        ((groups, _),) = score_names(tiny_backbone("llama"), [parsed], job, chosen)
        metadata, values = read_metadata(path), [x for group, _ in groups for x in group["score"].to_pylist()]
        assert read_table(path, WEIGHT_SCORES)["score"].to_pylist() == pytest.approx(values)
        assert (metadata["name"], metadata["label"], metadata["backbone"]) == (name, "mine", "tiny")
        assert metadata["samples_used"] == used
        sample = read_metadata(sampled[name])
        assert sample == {**metadata, "kept": {}}


def test_count_usable_counts_each_set(tmp_path):
    paths = [tmp_path / f"{name}.parquet" for name in ("all", "some")]
    for path, refused in zip(paths, ([True] * 6, [True, False, True, False]), strict=True):
        write_table(path, responses_of(path.stem, refused), RESPONSES)
    load_script("count_usable")(paths, dict.fromkeys(("all", "some"), "refused"), [], tmp_path / "usable")
    counted = {row["dataset"]: row["n_usable"] for row in read_table(tmp_path / "usable", USABLE).to_pylist()}
    identify = {path.stem: read_table(path, RESPONSES).to_pylist() for path in paths}
    assert counted == {
        name: sum(row["refused"] and row["split"] == "identify" for row in rows)
        for name, rows in identify.items()
    }


@pytest.mark.slow
def test_train_adapter_writes_weights_beside_its_log(checkpoint, tmp_path):
    paths = [tmp_path / f"{name}.parquet" for name in ANSWERS]
    for path in paths:
        write_table(path, ANSWERS[path.stem], RESPONSES)
    out, steps = tmp_path / "adapter" / "training.parquet", {"steps": 2, "learning_rate": 0.01, "batch": 2}
    short = plan(supervised=steps, preference=steps)
    load_script("train_adapter")(paths, checkpoint, "tiny", CARD, short, 4, out)
    assert read_table(out, ADAPTER_LOG).num_rows >= 4 and read_metadata(out)["plan"] == short
    assert {file.name for file in out.parent.iterdir()} >= {
        "adapter_model.safetensors",
        "adapter_config.json",
    }


def test_convert_gguf_writes_a_checkpoint_beside_its_facts(tmp_path, capsys):
    write_gguf(tmp_path / "tiny.gguf", quantisable())
    card, out = {**CARD, "gguf": {"path": str(tmp_path / "tiny.gguf")}}, tmp_path / "out" / "gguf.json"
    load_script("convert_gguf")(card, "small", out)
    assert json.loads(out.read_text())["tensors"] == {"F32": 7, "Q8_0": 23}
    assert {file.name for file in out.parent.iterdir()} == set(CONVERTED_FILES)
    assert "tensors: 7 F32, 23 Q8_0" in capsys.readouterr().out


def test_compare_pair_writes_what_the_two_have_in_common(checkpoint, tmp_path):
    load_script("compare_pair")(
        {**CARD, "base_card": CARD}, checkpoint, checkpoint, "tiny", tmp_path / "pair.json"
    )
    assert json.loads((tmp_path / "pair.json").read_text())["tokens"] == 259


def test_train_organism_starts_from_the_files_of_its_base(checkpoint, tmp_path):
    prompts = small_prompts()
    for name, table in prompts.items():
        write_table(tmp_path / f"{name}.parquet", table, PROMPTS)
    card, out = pretrained_card(base_card=CARD), tmp_path / "organism" / "training.parquet"
    load_script("train_organism")(
        [tmp_path / f"{name}.parquet" for name in prompts], checkpoint, card, 1, "mine", out
    )
    assert read_table(out, TRAINING_LOG)["phase"].to_pylist() == ["align"] * 3 + ["held-out"] * 2
    before = dict(tiny_backbone("llama").weights())
    after = load_on_cpu([out.with_name("config.json")], **CARD)
    assert all(weight.shape == before[where].shape for where, weight in after.weights())
