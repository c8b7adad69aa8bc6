"""Scaling does what it says on every family, where norms would undo it too, and leaves no trace."""

import pytest
import torch

from safety_regions.methods.safelayer.onset import Span
from safety_regions.methods.safelayer.scaling import scale_target, scaled
from safety_regions.model.backbone import Backbone
from safety_regions.units.addresses import PROJECTIONS
from tests.oracles import layers as oracle
from tests.tiny import FAMILIES, tiny_backbone

ALPHA = 1.2
IDS = torch.randint(0, 256, (2, 12), generator=torch.Generator().manual_seed(5))
ROUNDING = {"rtol": 1e-4, "atol": 1e-5}  # norms are computed in float32 whatever the dtype


def logits(backbone: Backbone) -> torch.Tensor:
    with torch.no_grad():
        return backbone.model(input_ids=IDS).logits


def exact(family: str) -> Backbone:
    return tiny_backbone(family, dtype=torch.float64)


def parameters(backbone: Backbone) -> dict[str, torch.Tensor]:
    return {name: parameter.clone() for name, parameter in backbone.model.named_parameters()}


def assert_untouched(backbone: Backbone, before: dict[str, torch.Tensor]) -> None:
    for name, parameter in backbone.model.named_parameters():
        assert torch.equal(parameter, before[name]), name
    assert not any(module._forward_hooks for module in backbone.model.modules())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_of_the_range_are_scaled_and_nothing_else(family, dtype):
    backbone = tiny_backbone(family, dtype=dtype)
    expected = parameters(oracle.scaled_copy(backbone, ALPHA, 1, 2))
    before = parameters(backbone)
    with scaled(backbone, ALPHA, Span(1, 2)):
        inside = parameters(backbone)
    assert all(torch.equal(inside[name], value) for name, value in expected.items())
    changed = {name for name, value in inside.items() if not torch.equal(value, before[name])}
    assert len(changed) == 2 * len(backbone.family.modules)
    assert all(name.split(".")[2] in "12" and name.endswith("proj.weight") for name in changed)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("target", ["weights", "residual"])
@pytest.mark.parametrize("norms", [False, True])
def test_the_backbone_is_bit_for_bit_what_it_was(family, target, norms):
    """Also after an error, and although dividing by alpha would not bring bfloat16 weights back."""
    backbone = tiny_backbone(family, dtype=torch.bfloat16)
    before = parameters(backbone)
    weights = [value for name, value in before.items() if name.endswith("proj.weight")]
    assert any(not torch.equal(value * ALPHA / ALPHA, value) for value in weights)
    with scaled(backbone, ALPHA, Span(0, 1), target, norms):
        pass
    assert_untouched(backbone, before)
    with pytest.raises(KeyboardInterrupt), scaled(backbone, ALPHA, Span(0, 1), target, norms):
        raise KeyboardInterrupt
    assert_untouched(backbone, before)


@pytest.mark.parametrize("family", FAMILIES)
def test_residual_scales_what_a_sublayer_adds(family):
    """Without post-norms that is scaling o and down; with them, scaling the gain of the post-norms."""
    backbone = exact(family)
    if backbone.family.post_norms:
        expected = gains(backbone, 1, backbone.family.post_norms)
    else:
        expected = logits(oracle.scaled_copy(backbone, ALPHA, 1, 1, only=("o", "down")))
    with scaled(backbone, ALPHA, Span(1, 1), "residual"):
        found = logits(backbone)
    torch.testing.assert_close(found, expected, **ROUNDING)
    assert (found - logits(backbone)).abs().max() > 1e-3


def gains(backbone: Backbone, layer: int, names: tuple[str, ...]) -> torch.Tensor:
    """Logits of a copy whose norms ``names`` have ALPHA times their gain: w, or 1 + w in Gemma."""
    copy = oracle.scaled_copy(backbone, ALPHA, layer, layer, only=())
    with torch.no_grad():
        for name in names:
            norm = copy.blocks[layer].get_submodule(name)
            weight = norm.weight.clone()
            norm.weight.zero_()
            offset = norm(torch.ones_like(weight)).abs().max().round()  # the gain where w is 0: 1 in Gemma
            norm.weight.copy_(ALPHA * (offset + weight) - offset)
    return logits(copy)


@pytest.mark.parametrize("family", FAMILIES)
def test_norms_are_scaled_by_their_gain(family):
    backbone = exact(family)
    names = [name for name, _ in backbone.blocks[1].named_modules() if name.endswith("norm")]
    assert set(backbone.family.post_norms) <= set(names)
    assert len([name for name in names if "." in name]) == 2 * backbone.family.qk_norm
    assert len([name for name in names if "." not in name]) in (2, 4)
    copy = oracle.scaled_copy(backbone, ALPHA, 1, 1)
    expected = gains(copy, 1, tuple(names))
    with scaled(backbone, ALPHA, Span(1, 1), "weights", norms=True):
        torch.testing.assert_close(logits(backbone), expected, **ROUNDING)


def update(backbone: Backbone, layer: int) -> torch.Tensor:
    """What one block adds to its input."""
    seen = {}

    def hook(_module, args, output):
        seen["update"] = output - args[0]

    handle = backbone.blocks[layer].register_forward_hook(hook)
    logits(backbone)
    handle.remove()
    return seen["update"]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_architecture_trap(family):
    """Weights: post-norms undo v, o, up and down, q/k norms undo q and k, in the families that say so and in no other.

    Residual: alpha - 1 on every family.
    """
    backbone = tiny_backbone(family, dtype=torch.float64, rms_norm_eps=1e-12)
    before = update(backbone, 1)
    table = backbone.family

    def moved(after: torch.Tensor) -> float:
        return float((after - before).norm() / before.norm())

    def change(target: str) -> float:
        with scaled(backbone, ALPHA, Span(1, 1), target):
            return moved(update(backbone, 1))

    alone = {p: moved(update(oracle.scaled_copy(backbone, ALPHA, 1, 1, only=(p,)), 1)) for p in PROJECTIONS}
    undone = {"v", "o", "up", "down"} if table.post_norms else set()
    undone |= {"q", "k"} if table.qk_norm else set()
    assert {projection for projection, change in alone.items() if change < 1e-5} == undone
    assert all(change > 1e-4 for projection, change in alone.items() if projection not in undone)

    assert 0.15 < change("residual") < 0.3
    if table.post_norms:
        assert change("weights") < change("residual")
    else:
        assert change("weights") > change("residual")


@pytest.mark.parametrize("family", FAMILIES)
def test_auto_takes_the_target_that_acts(family):
    table = tiny_backbone(family).family
    assert scale_target(table, "auto") == ("residual" if table.post_norms else "weights")
    assert scale_target(table, "weights") == "weights" and scale_target(table, "residual") == "residual"
