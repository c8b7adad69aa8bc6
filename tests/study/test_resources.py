"""Jobs ask for enough memory and time, for more with larger backbones, and for no GPU if they run an organism."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety_regions.study.catalog import Shelf
from safety_regions.study.method_shelf import method_cards
from safety_regions.study.resources import (
    MINUTES,
    batch_size,
    gpus,
    kept_bytes,
    memory_mb,
    minutes,
    parameters,
    regions_mb,
)

SHELF = Shelf("backbones", {})
CARDS = {name: SHELF.read(name) for name in SHELF.names}
CHECKPOINTS = sorted(name for name, card in CARDS.items() if card["kind"] == "checkpoint")
ORGANISM = {"kind": "organism"}
# Bytes of one parameter in memory.
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}

checkpoints = st.builds(
    lambda n, dtype: {"kind": "checkpoint", "parameters": n, "dtype": dtype},
    st.floats(1e4, 1e12),
    st.sampled_from(sorted(BYTES)),
)
# Billions of parameters of a checkpoint that has many more than its name says.
NAMED = {"olmo-2-0425-1b-instruct": 1.485, "olmo-2-0425-1b": 1.485}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_every_checkpoint_of_the_catalog_tells_its_size(name):
    """A card gives the number of parameters, not of billions, and it is close to the number in the name."""
    assert 1e8 < CARDS[name]["parameters"] < 1e12
    sizes = re.findall(r"([0-9.]+)b\b", name)
    for size in sizes:
        assert CARDS[name]["parameters"] / 1e9 == pytest.approx(NAMED.get(name, float(size)), rel=0.35)


@given(checkpoints, st.sampled_from(sorted(method_cards())))
def test_memory_covers_weights_and_sums(card, method):
    needed = card["parameters"] * (BYTES[card["dtype"]] + kept_bytes(method)) / 1e6
    assert memory_mb(card, kept=kept_bytes(method)) > needed + 600, "Snakemake itself takes about 350 MB"


@given(checkpoints, st.integers(1, 4))
def test_each_attempt_asks_for_more(card, attempt):
    for one in (card, ORGANISM):
        assert memory_mb(one, attempt + 1) > memory_mb(one, attempt)
        assert all(minutes(rule, one, attempt + 1) > minutes(rule, one, attempt) for rule in MINUTES)


@given(checkpoints, st.integers(1, 16), st.integers(1, 4))
def test_regions_take_a_bit_a_weight(card, regions, attempt):
    needed = attempt * regions * card["parameters"] / 8 / 1e6
    assert needed < regions_mb(card, regions, attempt) <= attempt * 4000 + needed + attempt
    assert regions_mb(ORGANISM, regions, attempt) == memory_mb(ORGANISM, attempt)


@given(checkpoints, st.floats(1.1, 4))
def test_a_larger_checkpoint_asks_for_no_less(card, factor):
    larger = {**card, "parameters": card["parameters"] * factor}
    assert memory_mb(larger) >= memory_mb(card) and gpus(larger) >= gpus(card)
    assert all(minutes(rule, larger) >= minutes(rule, card) for rule in MINUTES)


@given(checkpoints)
def test_checkpoints_take_a_gpu_and_organisms_none(card):
    assert gpus(card) >= 1 and gpus(ORGANISM) == 0
    assert gpus(card) == 1 or card["parameters"] * BYTES[card["dtype"]] > 20e9


def test_methods_that_sum_over_samples_keep_a_float32_for_each_weight():
    assert kept_bytes("snip") == 4 and kept_bytes("wanda") == 0


def test_a_tiny_organism_reads_more_chats_per_pass_than_a_real_model():
    pretrained = ORGANISM | {"base_card": CARDS["smollm2-135m-instruct"]}
    assert batch_size(ORGANISM) > batch_size(pretrained) == batch_size(CARDS["smollm2-135m-instruct"])


def test_the_size_of_a_local_checkpoint_is_that_of_its_files(tmp_path):
    card = {"kind": "checkpoint", "path": str(tmp_path)}
    unknown = parameters({"kind": "checkpoint", "repo": "a/b"})
    assert parameters(card) == unknown > 1e9, (
        "without files, the size of a common large checkpoint is assumed"
    )
    for i in range(2):
        (tmp_path / f"model-{i}.safetensors").write_bytes(bytes(1000))
    (tmp_path / "optimizer.bin").write_bytes(bytes(10_000))
    assert parameters(card) == 1000, "two files of 1000 bytes, two bytes for each parameter"
    assert parameters({**card, "parameters": 7.0}) == 7
