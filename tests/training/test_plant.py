"""In planted organisms, alignment changes only the truth; matched norms stay; the same seed plants the same region."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safety_regions.errors import StudyError
from safety_regions.formats.expand import expand_region
from safety_regions.formats.region import Region, read_region
from safety_regions.methods.safeneuron import method as safeneuron
from safety_regions.model.backbone import Backbone
from safety_regions.model.batches import Sample
from safety_regions.scoring.samples import Samples
from safety_regions.training import organism
from safety_regions.training.organism import train_organism
from safety_regions.training.plant import truth_region
from safety_regions.units.addresses import PROJECTIONS
from safety_regions.units.fractions import scope_count
from tests.tiny import load_on_cpu, tiny_backbone
from tests.training.organisms import small_card, small_prompts

PLACES = {
    "layers": {"layers": [1]},
    "neurons": {"neurons": 0.1},
    "weights": {"weights": 0.05},
    "lora": {"lora": {"rank": 2, "projections": ["q", "v"]}},
}
MATCHABLE = ("layers", "neurons", "weights")


def plant_of(place: str, norm: str = "free", seed: int = 0) -> dict:
    return PLACES[place] | {"norm": norm, "seed": seed}


def trained(monkeypatch, directory, family: str, plant: dict | None) -> tuple[dict, Backbone, Region]:
    """Train an organism; return its parameters after the base phase, the organism read from disk, and its truth."""
    base, held = {}, organism.held

    def watched(backbone, *rest):
        base.update((name, p.detach().clone()) for name, p in backbone.model.named_parameters())
        return held(backbone, *rest)

    monkeypatch.setattr(organism, "held", watched)
    plan = {"base": {"steps": 3, "learning_rate": 0.01}, "align": {"steps": 6, "learning_rate": 0.01}}
    card = small_card(family, **plan) | ({"plant": plant} if plant else {})
    train_organism(card, small_prompts(), directory, "planted")
    files = [directory / "model.safetensors"]
    return base, load_on_cpu(files), read_region(directory / "truth.safetensors")


def bits(weight: torch.Tensor) -> np.ndarray:
    return weight.detach().contiguous().view(torch.int32).numpy()


def by_address(backbone: Backbone, parameters: dict) -> dict[str, torch.Tensor]:
    """Return address -> weights after the base phase; in these families, layers are not fused and have no bias."""
    names = {id(p): name for name, p in backbone.model.named_parameters()}
    return {line.slices[0].address: parameters[names[id(line.module.weight)]] for line in backbone.linears}


@pytest.mark.parametrize(
    ("family", "place", "norm"),
    [
        *(("llama", place, "free") for place in PLACES),
        *(("llama", place, "matched") for place in MATCHABLE),
        ("qwen3", "neurons", "matched"),
        ("gemma2", "weights", "free"),
        ("mistral", "lora", "free"),
    ],
)
@pytest.mark.slow
def test_alignment_changes_the_truth_and_nothing_else(family, place, norm, monkeypatch, tmp_path):
    base, backbone, truth = trained(monkeypatch, tmp_path / "organism", family, plant_of(place, norm))
    region = expand_region(truth, backbone.shapes)
    before = by_address(backbone, base)
    moved = total = 0
    for where, weight in backbone.weights():
        flags = region.flags(where)
        changed = bits(weight) != bits(before[where])
        assert not (changed & ~flags).any()
        moved, total = moved + np.count_nonzero(changed & flags), total + np.count_nonzero(flags)
    assert 0.99 * total < moved <= total
    scored = {id(line.module.weight) for line in backbone.linears}
    rest = {name: p for name, p in backbone.model.named_parameters() if id(p) not in scored}
    assert "model.embed_tokens.weight" in rest and "model.norm.weight" in rest
    for name, parameter in rest.items():
        assert torch.equal(parameter, base[name])
        assert (bits(parameter) == bits(base[name])).all()


def test_without_a_plant_alignment_changes_everything_and_the_truth_is_all_weights(monkeypatch, tmp_path):
    base, backbone, truth = trained(monkeypatch, tmp_path / "organism", "llama", None)
    assert {where: list(shape) for where, shape in truth.shapes.items()} == backbone.shapes
    assert truth.n_selected == truth.n_units
    assert (truth.metadata["granularity"], truth.metadata["fraction"], truth.metadata["plant"]) == (
        "weight",
        1,
        None,
    )
    assert not any(torch.equal(p, base[name]) for name, p in backbone.model.named_parameters())


def norms(where: str, weight: torch.Tensor, flags: np.ndarray, place: str) -> list[float]:
    """Return the norms of the weights that alignment could change, one for each matrix or each neuron."""
    free = np.where(flags, weight.detach().double().numpy(), 0)
    if place != "neurons":
        return [np.sqrt((free**2).sum())]
    lines = free if where.endswith("up") else free.T
    return [np.sqrt(sum(x * x for x in line)) for line in lines if line.any()]


@pytest.mark.slow
@pytest.mark.parametrize("place", MATCHABLE)
def test_a_matched_plant_keeps_the_norms_it_had_and_a_free_one_does_not(place, monkeypatch, tmp_path):
    for norm in ("matched", "free"):
        with monkeypatch.context() as patch:
            base, backbone, truth = trained(patch, tmp_path / norm, "llama", plant_of(place, norm))
        region, before = expand_region(truth, backbone.shapes), by_address(backbone, base)
        pairs = [
            pair
            for where, weight in backbone.weights()
            for pair in zip(
                norms(where, weight, region.flags(where), place),
                norms(where, before[where], region.flags(where), place),
                strict=True,
            )
        ]
        after, was = np.array(pairs).T
        assert len(pairs) == {"layers": 14, "weights": 14, "neurons": 2 * 2 * 2}[place]
        assert np.allclose(after[was > 0], was[was > 0], rtol=1e-5) == (norm == "matched")


@pytest.mark.slow
def test_a_low_rank_plant_is_of_low_rank_and_leaves_no_trace_in_the_config(monkeypatch, tmp_path):
    base, backbone, truth = trained(monkeypatch, tmp_path / "one", "llama", plant_of("lora"))
    trained(monkeypatch, tmp_path / "two", "llama", None)
    before = by_address(backbone, base)
    for where, weight in backbone.weights():
        if truth.selected_at[where]:
            values = torch.linalg.svdvals((weight - before[where]).double())
            assert values[1] > 1e-3 * values[0] and values[2] < 1e-4 * values[0]
    for name in ("config.json", "generation_config.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


EXPECTED = {
    "layers": ("layer", "global", 1 / 3, {"layers": 1}),
    "neurons": ("neuron", "matrix", 0.1, {"up": 4, "down": 4, "q": 0, "k": 0, "v": 0}),
    "weights": ("weight", "matrix", 0.05, None),
    "lora": ("weight", "matrix", None, {p: 1.0 if p in ("q", "v") else 0.0 for p in PROJECTIONS}),
}


@pytest.mark.parametrize("place", sorted(PLACES))
def test_a_truth_has_the_size_its_card_says(place):
    backbone = tiny_backbone("mistral")
    truth = truth_region(backbone, plant_of(place), {"backbone": "b"})
    granularity, scope, fraction, sizes = EXPECTED[place]
    metadata = truth.metadata
    assert (metadata["granularity"], metadata["scope"], metadata["backbone"]) == (granularity, scope, "b")
    assert metadata["fraction"] == (truth.n_selected / truth.n_units if fraction is None else fraction)
    assert truth.available == truth.units_at
    for where, count in truth.selected_at.items():
        n, name = truth.units_at[where], where.rpartition(".")[2]
        if place == "weights":
            assert count == n // 20
        else:
            assert count == (sizes[name] * n if place == "lora" else sizes[name])
    if place == "neurons":
        for layer in range(3):
            up, down = (truth.flags(f"layers.{layer}.{p}") for p in ("up", "down"))
            assert (up == down).all()


def test_the_truth_of_neurons_has_the_addresses_of_safeneuron():
    backbone = tiny_backbone("qwen3")
    options = {"importance": "paper", "tokens": "prompt", "index_bug": False}
    samples = Samples([Sample("p0", [*range(40, 52)], 9)], batch_size=1)
    evidence = safeneuron.gather(backbone, samples, options)
    scored = {where: tuple(s.shape) for where, s in safeneuron.scores(backbone, evidence, options)}
    assert truth_region(backbone, plant_of("neurons"), {}).shapes == scored


def draw(place: str, seed: int, family: str = "llama") -> dict[str, bytes]:
    region = truth_region(tiny_backbone(family, seed=seed), plant_of(place, seed=seed), {})
    return {where: mask.tobytes() for where, mask in region.masks.items()}


@pytest.mark.parametrize("place", ["neurons", "weights"])
def test_a_draw_repeats_and_another_seed_or_layer_draws_others(place):
    one, other = draw(place, 3), draw(place, 4)
    assert one == draw(place, 3)
    assert one["layers.0.up"] != other["layers.0.up"]
    assert len({one[f"layers.{layer}.up"] for layer in range(3)}) == 3


@given(st.floats(0.03, 1), st.integers(0, 9))
def test_a_fraction_is_rounded_down_in_every_block(fraction, seed):
    truth = truth_region(BACKBONE, {"neurons": fraction, "norm": "free", "seed": seed}, {})
    assert {truth.selected_at[f"layers.{layer}.up"] for layer in range(3)} == {scope_count(fraction, 48)}


BACKBONE = tiny_backbone("llama")


@pytest.mark.parametrize(
    ("plant", "found"),
    [
        ({"layers": [0, 2]}, "found layer 2; expected one of 0 to 1"),
        ({"neurons": 0.01}, "fraction 0.01 of 24 units"),
        ({"weights": 0.001}, r"layers\.0\.q: found fraction 0.001 of 512 units"),
        ({"lora": {"rank": 17, "projections": ["q"]}}, "rank: found 17; expected at most 16"),
    ],
)
def test_a_plant_that_does_not_fit_is_named_and_leaves_nothing(plant, found, tmp_path):
    card = small_card() | {"plant": plant | {"norm": "free", "seed": 0}}
    with pytest.raises(StudyError, match=found):
        train_organism(card, small_prompts(), tmp_path / "organism", "small")
    assert list(tmp_path.iterdir()) == []
