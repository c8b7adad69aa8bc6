"""The public Python interface must work: regions as arrays, their IoU, and a region on a loaded model."""

import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from transformers import AutoModel, BertConfig, BertModel

import safety_regions
from safety_regions import Region, expand, iou, load_region, weight_masks, weight_shapes, zeroed
from safety_regions.errors import StudyError
from safety_regions.formats.region import write_region
from tests.regions.small_regions import METADATA, SHAPES_OF, region_of, regions, units
from tests.tiny import FAMILIES, tiny_backbone, tiny_model

DOCS = Path(__file__).parents[1] / "docs" / "python.md"
NEURONS = ("q", "k", "v", "up", "down")
GRANULARITIES = ("weight", "neuron", "head", "layer")


def drawn(model, granularity, seed=0):
    """Return a random region of a model with half of its weights, neurons, heads or layers."""
    shapes = weight_shapes(model)
    unit_shapes = {
        "weight": shapes,
        "neuron": {
            where: (shape[where.endswith("down")],)
            for where, shape in shapes.items()
            if where.split(".")[-1] in NEURONS
        },
        "head": {f"layers.{layer}.heads": (4,) for layer in range(3)},
        "layer": {"layers": (3,)},
    }[granularity]
    rng = np.random.default_rng(seed)
    masks = {
        where: rng.permutation(np.arange(math.prod(s)) % 2 == 0).reshape(s)
        for where, s in unit_shapes.items()
    }
    return Region.from_masks(masks, {"granularity": granularity})


def bits(model):
    """Return the bits of every parameter, by name."""
    return {name: p.detach().clone().view(torch.int32) for name, p in model.named_parameters()}


def test_importing_the_package_loads_nothing_heavy():
    code = (
        "import sys, safety_regions; print(sorted({'numpy', 'torch', 'pyarrow', 'transformers'} & set(sys.modules)));"
        "safety_regions.load_region; print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["[]", "[]"]


def test_the_package_lists_its_functions_and_no_others():
    offered = {"Region", "load_region", "iou", "expand", "weight_shapes", "weight_masks", "zeroed"}
    assert offered <= set(dir(safety_regions))
    with pytest.raises(AttributeError, match="no attribute 'lode_region'"):
        _ = safety_regions.lode_region


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_a_loaded_region_is_what_was_written(tmp_path, granularity):
    written = region_of(np.random.default_rng(0), shapes=SHAPES_OF[granularity], granularity=granularity)
    write_region(tmp_path / "a", written)
    region = load_region(tmp_path / "a")
    assert list(region.masks) == list(SHAPES_OF[granularity])
    for where, shape in SHAPES_OF[granularity].items():
        assert region.masks[where].dtype == bool and region.masks[where].shape == shape
        assert np.array_equal(region.masks[where], written.flags(where))
    assert region.metadata == {
        **METADATA, "granularity": granularity, "available": written.available, "selected": written.selected_at,
    }  # fmt: skip


def test_changing_a_mask_leaves_the_region():
    region = Region(region_of(np.random.default_rng(0)))
    before = region.masks["layers.0.q"].copy()
    region.masks["layers.0.q"][:] ^= True
    assert np.array_equal(region.masks["layers.0.q"], before)


def test_a_region_says_how_large_it_is():
    region = Region.from_masks({"layers": np.array([True, False, True])}, {"granularity": "layer"})
    assert repr(region) == "<Region: 2 of 3 layers, 1 addresses>"


@given(regions(), regions())
def test_the_iou_counts_units_in_both_and_in_either(a, b):
    both, either = units(a) & units(b), units(a) | units(b)
    found = iou(Region(a), Region(b))
    assert found == len(both) / len(either) if either else math.isnan(found)


OTHERS = {
    "granularity": ({"layers": np.array([True])}, "layer", "granularity layer"),
    "shape": ({"layers.0.q": np.ones((2, 4), bool)}, "weight", r"layers\.0\.q: found shape \(2, 4\)"),
    "address": ({"layers.0.k": np.ones((2, 3), bool)}, "weight", r"layers\.0\.q: found no units"),
    "more": (
        {"layers.0.q": np.ones((2, 3), bool), "layers.0.k": np.ones(1, bool)},
        "weight",
        "expected no units",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_regions_of_other_units_have_no_iou(name):
    masks, granularity, message = OTHERS[name]
    first = Region.from_masks({"layers.0.q": np.ones((2, 3), bool)}, {"granularity": "weight"})
    with pytest.raises(StudyError, match=message):
        iou(first, Region.from_masks(masks, {"granularity": granularity}))


NO_REGIONS = {
    "granularity": ({"layers": np.array([True])}, {"granularity": "expert"}, "unknown granularity 'expert'"),
    "no granularity": ({"layers": np.array([True])}, {}, "unknown granularity"),
    "address": ({"layer.0.q": np.array([True])}, {"granularity": "weight"}, "unknown form"),
    "numbers": ({"layers": np.array([0.5])}, {"granularity": "layer"}, "found float64; expected booleans"),
}


@pytest.mark.parametrize("name", NO_REGIONS)
def test_what_is_no_region_is_refused(name):
    masks, metadata, message = NO_REGIONS[name]
    with pytest.raises(StudyError, match=message):
        Region.from_masks(masks, metadata)


def test_units_stand_for_their_weights():
    shapes = {"layers.0.q": (2, 3), "layers.0.down": (3, 2)}
    neurons = {"layers.0.q": np.array([True, False]), "layers.0.down": np.array([False, True])}
    expanded = expand(Region.from_masks(neurons, {"granularity": "neuron"}), shapes)
    assert expanded.masks["layers.0.q"].tolist() == [[True] * 3, [False] * 3]
    assert expanded.masks["layers.0.down"].tolist() == [[False, True]] * 3
    assert expanded.metadata["granularity"] == "weight" and expanded.metadata["expanded_from"] == "neuron"


def test_ranks_are_no_masks():
    with pytest.raises(StudyError, match="unknown granularity 'rank'"):
        Region.from_masks({"layers.0.q": np.ones(3, bool)}, {"granularity": "rank"})


MISFITS = {
    "weight": ({"layers.0.q": np.ones((1, 3), bool)}, "weight"),
    "other address": ({"layers.7.q": np.ones((2, 3), bool)}, "weight"),
    "neurons": ({"layers.0.q": np.ones(5, bool)}, "neuron"),
    "other neurons": ({"layers.7.q": np.ones(2, bool)}, "neuron"),
    "heads": ({"layers.0.heads": np.ones(3, bool)}, "head"),
    "other heads": ({"layers.7.heads": np.ones(2, bool)}, "head"),
    "more layers": ({"layers": np.ones(2, bool)}, "layer"),
    "fewer layers": ({"layers": np.ones(0, bool)}, "layer"),
    "factors": ({"layers.0.q.A": np.ones((1, 3), bool)}, "lora_weight"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_a_region_of_another_model_is_not_expanded(name):
    masks, granularity = MISFITS[name]
    with pytest.raises(StudyError, match="expected"):
        expand(Region.from_masks(masks, {"granularity": granularity}), {"layers.0.q": (2, 3)})


@pytest.mark.parametrize("family", FAMILIES)
def test_weight_shapes_are_those_that_methods_score(family):
    backbone = tiny_backbone(family)
    assert weight_shapes(backbone.model) == {where: tuple(shape) for where, shape in backbone.shapes.items()}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_masks_are_the_regions_weights_in_each_parameter(family, granularity):
    """Weights that are set to 1 through the masks must be 1 exactly where the region is, at every address."""
    backbone = tiny_backbone(family)
    region = drawn(backbone.model, granularity)
    masks, parameters = weight_masks(region, backbone.model), dict(backbone.model.named_parameters())
    with torch.no_grad():
        for name, mask in masks.items():
            assert mask.dtype == torch.bool
            parameters[name].copy_(mask)
    expanded = expand(region, backbone.shapes).masks
    assert all(np.array_equal(weight.numpy() == 1, expanded[where]) for where, weight in backbone.weights())


def test_a_fused_parameter_joins_the_rows_of_its_matrices():
    model = tiny_model("phi3")
    flags = {where: np.zeros(shape, bool) for where, shape in weight_shapes(model).items()}
    flags["layers.1.k"][0, 5] = True  # after the 32 rows of q
    flags["layers.1.up"][2, 0] = True  # after the 48 rows of gate
    masks = weight_masks(Region.from_masks(flags, {"granularity": "weight"}), model)
    found = {name: mask.nonzero().tolist() for name, mask in masks.items() if mask.any()}
    assert found == {
        "model.layers.1.self_attn.qkv_proj.weight": [[32, 5]],
        "model.layers.1.mlp.gate_up_proj.weight": [[50, 0]],
    }


class Stop(Exception):
    pass


@pytest.mark.parametrize("family", ["llama", "phi3"])
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("failing", [False, True])
def test_zeroed_sets_the_regions_weights_to_zero_and_brings_their_bits_back(family, granularity, failing):
    model = tiny_model(family)
    region = drawn(model, granularity)
    masks, strange = weight_masks(region, model), torch.tensor([-0.0, float("nan"), float("inf"), 1e-45])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.view(-1)[:4] = strange
            parameter.view(torch.int32).view(-1)[1] |= 0x1234  # a NaN with a payload
    before, within = bits(model), {}
    try:
        with zeroed(model, region):
            within = bits(model)
            if failing:
                raise Stop
    except Stop:
        assert failing
    for name, old in before.items():
        mask = masks.get(name, torch.zeros(old.shape, dtype=torch.bool))
        assert torch.equal(within[name], torch.where(mask, torch.zeros_like(old), old)), name
    after = bits(model)
    assert all(torch.equal(after[name], old) for name, old in before.items())


def test_zeroed_restores_a_model_that_could_not_be_zeroed_to_its_end(monkeypatch):
    model = tiny_model("llama")
    before, fill, calls = bits(model), torch.Tensor.masked_fill_, []

    def fail_at_the_fifth(*arguments):
        calls.append(1)
        if len(calls) == 5:
            raise MemoryError
        return fill(*arguments)

    monkeypatch.setattr(torch.Tensor, "masked_fill_", fail_at_the_fifth)
    with pytest.raises(MemoryError), zeroed(model, drawn(model, "weight")):
        pass
    assert all(torch.equal(bits(model)[name], old) for name, old in before.items())


def test_a_model_of_no_known_family_or_without_head_or_weights_is_refused():
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    with pytest.raises(StudyError, match="unknown model_type 'bert'"):
        weight_shapes(BertModel(BertConfig(vocab_size=9, **sizes)))
    model = tiny_model("llama")
    with pytest.raises(StudyError, match=r"LlamaModel: found no model\.layers"):
        weight_shapes(AutoModel.from_config(model.config))
    region = drawn(model, "layer")
    with (
        pytest.raises(StudyError, match="parameters that are not in memory"),
        zeroed(model.to("meta"), region),
    ):
        pass


def test_the_examples_of_the_documentation_run(tmp_path, monkeypatch, capsys):
    """The examples must run with a tiny model and random regions instead of those of the default study."""
    monkeypatch.chdir(tmp_path)
    model = tiny_model("llama")
    model.save_pretrained("results/organisms/organism-llama")
    text = DOCS.read_text(encoding="utf-8")
    for seed, path in enumerate(dict.fromkeys(re.findall(r'"(results/regions/[^"]*)"', text))):
        packed = drawn(model, "neuron" if "safeneuron" in path else "weight", seed).packed
        packed.metadata.update(scope="row", fraction=0.5, backbone="organism-llama")
        write_region(path, packed)
    before, names = bits(model), {}
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    for block in blocks:
        exec(block, names)
    assert len(blocks) == 5
    a, b = (load_region(f"results/regions/organism-llama/snip/{name}/row-0.05/raw.safetensors")
            for name in ("fraud", "hacking"))  # fmt: skip
    assert str(iou(a, b)) in capsys.readouterr().out
    assert all(torch.equal(bits(names["model"])[name], old) for name, old in before.items())
    (own,) = re.findall(r"```python\n(.*?)```", DOCS.with_name("given-regions.md").read_text(), re.DOTALL)
    exec(own, names)
    region = load_region("my-region.safetensors")
    assert {where: mask.shape for where, mask in region.masks.items()} == weight_shapes(model)
    assert all(0.05 <= mask.mean() < 0.06 for mask in region.masks.values())
    assert region.metadata["scope"] == "matrix"
