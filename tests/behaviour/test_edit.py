"""Operations do what they say in every family, and every bit comes back; identities that must hold exactly."""

import numpy as np
import pytest
import torch

from safety_regions.behaviour.edit import (
    all_weights,
    changeable,
    edited,
    fingerprint,
    n_weights_of,
    n_writing,
    without_direction,
)
from safety_regions.behaviour.operations import load_operation
from safety_regions.errors import StudyError
from safety_regions.formats.expand import expand_region
from safety_regions.model.backbone import attached
from safety_regions.study.operation_shelf import dose_problems, operation_cards
from tests.behaviour.regions import some_units
from tests.oracles.ranks import projector
from tests.tiny import FAMILIES, tiny_backbone

OPERATIONS = sorted(operation_cards())
IDENTITIES = [
    (name, card["neutral"]) for name, card in operation_cards().items() if card["neutral"] is not None
]
GRANULARITIES = ("weight", "neuron", "head", "layer")
DIRECTION = torch.randn(32, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
AS_THEY_ARE = [name for name in FAMILIES if not tiny_backbone(name).family.post_norms]
"""Families that add the outputs of attention and MLP to the residual stream without a norm."""


def pair(family="llama3", **changes):
    """An aligned backbone, and the weights of a base that differs in most of them."""
    backbone, other = tiny_backbone(family, **changes), tiny_backbone(family, seed=1, **changes)
    base = {where: weight.detach().clone() for where, weight in other.weights()}
    for where, weight in backbone.weights():
        base[where][0] = weight.detach()[0]  # alignment did not change the first rows
    return backbone, base


def copies(backbone):
    return {where: weight.detach().clone() for where, weight in backbone.weights()}


def logits(backbone):
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    with torch.no_grad():
        return backbone.model(input_ids=ids).logits


def defined(name, weight, inside, base, dose):
    """What an operation makes of one weight, literally; None for a random operation."""
    w, b = float(weight), float(base)
    if name == "transplant":
        return b + dose * (w - b) if inside else b
    if not inside:
        return w
    return {"zero": 0.0, "scale": dose * w, "base": w + dose * (b - w)}.get(name)


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_bit_comes_back(family, granularity):
    backbone, base = pair(family)
    region = expand_region(some_units(backbone, granularity), backbone.shapes)
    before, marks, aligned = copies(backbone), fingerprint(backbone), copies(tiny_backbone(family, seed=2))
    for name in OPERATIONS:
        for dose in [1.0] if name == "safelora" else operation_cards()[name]["doses"]:
            how = {"aligned": aligned, "direction": DIRECTION}
            with edited(backbone, load_operation(name), dose, region, base, **how) as n:
                after = copies(backbone)
                assert fingerprint(backbone) != marks
            different = {where: (after[where] != before[where]).numpy() for where in before}
            assert n == sum(map(np.count_nonzero, different.values())) > 0
            if not operation_cards()[name]["into_base"]:
                assert not any((different[where] & ~region.flags(where)).any() for where in before)
            assert all(torch.equal(weight, before[where]) for where, weight in backbone.weights())
            assert fingerprint(backbone) == marks


@pytest.mark.parametrize("dose", [1.0, 0.25])
@pytest.mark.parametrize("name", ["zero", "scale", "base", "transplant"])
def test_weights_are_those_of_the_definition(name, dose):
    backbone, base = pair()
    region, before = some_units(backbone), copies(backbone)
    with edited(backbone, load_operation(name), dose, region, base):
        after = copies(backbone)
    rng = np.random.default_rng(0)
    for where, weight in before.items():
        flags = region.flags(where)
        for _ in range(20):
            at = tuple(int(rng.integers(n)) for n in weight.shape)
            expected = defined(name, weight[at], flags[at], base[where][at], dose)
            assert float(after[where][at]) == pytest.approx(expected, rel=1e-5, abs=1e-8)


LINEAR = [name for name in OPERATIONS if operation_cards()[name]["linear"]]


@pytest.mark.parametrize("family", ["llama3", "qwen3", "phi3"])
def test_a_subspace_is_changed_as_a_whole_and_every_bit_comes_back(family):
    """With a projector P: W - P W, and towards the base W + P (B - W); the part outside the subspace stays."""
    backbone, base = pair(family)
    region, before, marks = some_units(backbone, "rank"), copies(backbone), fingerprint(backbone)
    assert LINEAR == ["base", "scale", "transplant", "zero"]
    for name in LINEAR:
        for dose in (1.0, 0.25):
            with edited(backbone, load_operation(name), dose, region, base) as n:
                after = copies(backbone)
            assert n == sum(int((after[where] != before[where]).sum()) for where in before)
            for where, weight in before.items():
                w, b = weight.double().numpy(), base[where].double().numpy()
                p = projector(region.bases[where])
                expected = {
                    "zero": w - p @ w,
                    "scale": w + (dose - 1) * p @ w,
                    "base": w + dose * p @ (b - w),
                    "transplant": b + dose * p @ (w - b),
                }[name]
                error = np.abs(after[where].double().numpy() - expected).max()
                assert error < 2e-6 * np.abs(w).max()
            assert fingerprint(backbone) == marks
    for name, neutral in (("base", 0.0), ("scale", 1.0)):
        with edited(backbone, load_operation(name), neutral, region, base) as n:
            assert n == 0 and fingerprint(backbone) == marks


def test_an_operation_that_draws_or_selects_does_not_act_on_subspaces():
    backbone, _ = pair()
    region = some_units(backbone, "rank")
    for name in set(OPERATIONS) - set(LINEAR):
        with pytest.raises(StudyError, match=f"operation '{name}' on ranks"):
            changeable(region, [name], backbone.shapes)
    assert changeable(region, LINEAR, backbone.shapes) is region
    assert n_weights_of(region, backbone.shapes) == sum(
        n * backbone.shapes[where][1] for where, n in region.selected_at.items()
    )
    with pytest.raises(StudyError, match="those of the backbone"):
        changeable(region, ["zero"], tiny_backbone("llama3", hidden_size=40).shapes)


def tuned():
    """A fine-tuned backbone, and the weights of the aligned and of the base model."""
    backbone, base = pair()
    return backbone, copies(tiny_backbone("llama3", seed=2)), base


def test_rewinding_gives_the_aligned_weights_inside_the_region():
    backbone, aligned, _ = tuned()
    region, before = some_units(backbone), copies(backbone)
    with edited(backbone, load_operation("rewind"), 1.0, region, aligned=aligned):
        for where, weight in backbone.weights():
            inside = torch.from_numpy(region.flags(where))
            assert torch.equal(weight[inside], aligned[where][inside])
            assert torch.equal(weight[~inside], before[where][~inside])


@pytest.mark.parametrize("dose", [1.25, -0.5])
def test_lox_adds_the_strongest_directions_of_alignment(dose):
    backbone, aligned, base = tuned()
    before = copies(backbone)
    with edited(backbone, load_operation("lox"), dose, all_weights(backbone, True), base, aligned=aligned):
        after = copies(backbone)
    for where, weight in before.items():
        change = (aligned[where] - base[where]).double().numpy()
        values, vectors = np.linalg.eigh(change @ change.T)
        strongest = vectors[:, np.argsort(-values)[:6]]
        expected = weight.double().numpy() + dose * strongest @ strongest.T @ change
        assert np.allclose(after[where].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("threshold", [-1.0, 0.7, 1.0])
def test_safelora_projects_what_differs_from_alignment(threshold):
    backbone, aligned, base = tuned()
    before = copies(backbone)
    with edited(
        backbone, load_operation("safelora"), threshold, all_weights(backbone, True), base, aligned=aligned
    ):
        after = copies(backbone)
    projected = 0
    for where, weight in before.items():
        v, d = (
            (one - other[where]).double().numpy()
            for one, other in ((aligned[where], base), (weight, aligned))
        )
        moved = v @ v.T / np.sqrt((v**2).sum()) @ d
        cosine = (moved * d).sum() / np.sqrt((moved**2).sum() * (d**2).sum())
        expected = aligned[where].double().numpy() + moved if cosine <= threshold else weight.numpy()
        assert np.allclose(after[where].numpy(), expected, atol=1e-5)
        projected += cosine <= threshold
    assert (projected == 0) == (threshold == -1) and (projected == len(before)) == (threshold == 1)


def test_safelora_leaves_what_alignment_did_not_change():
    backbone, aligned, _ = tuned()
    with edited(
        backbone, load_operation("safelora"), 1.0, all_weights(backbone, True), aligned, aligned=aligned
    ) as n:
        assert n == 0


@pytest.mark.slow
def test_the_patch_of_nlsr_goes_to_the_least_similar_matrices_first():
    backbone, aligned, base = tuned()
    region, patched = some_units(backbone), np.zeros(len(backbone.shapes))
    cosines = []
    for where, weight in copies(backbone).items():
        inside = torch.from_numpy(region.flags(where))
        one, other = (x[inside].double() for x in (weight - base[where], aligned[where] - base[where]))
        cosines.append(float(one @ other / (one.norm() * other.norm())))
    for seed in range(200):
        before = copies(backbone)
        with edited(backbone, load_operation("nlsr_patch"), 0.5, region, base, seed, aligned):
            for i, (where, weight) in enumerate(backbone.weights()):
                inside = torch.from_numpy(region.flags(where))
                done = torch.equal(weight[inside], aligned[where][inside])
                assert torch.equal(weight[~inside], before[where][~inside])
                assert done or torch.equal(weight[inside], before[where][inside])
                patched[i] += done
    order = np.argsort(cosines)  # the least similar first
    likely = np.empty(len(order))
    likely[order] = np.linspace(0.7, 0.3, len(order))
    # 21 matrices, 200 draws: five standard errors
    assert np.abs(patched / 200 - likely).max() < 5 * np.sqrt(0.25 / 200)
    assert np.corrcoef(patched, likely)[0, 1] > 0.8


def test_the_number_of_changed_weights_is_the_size_of_the_region():
    backbone, base = pair()
    region = some_units(backbone)
    with edited(backbone, load_operation("zero"), 1.0, region) as n:
        assert n == region.n_selected
    differing = sum(
        int((region.flags(where) & (weight.detach() != base[where]).numpy()).sum())
        for where, weight in backbone.weights()
    )
    with edited(backbone, load_operation("base"), 1.0, region, base) as n:
        assert n == differing < region.n_selected


@pytest.mark.parametrize(("name", "dose"), IDENTITIES)
def test_a_neutral_dose_changes_no_bit(name, dose):
    backbone, base = pair()
    expected = logits(backbone)
    change = edited(
        backbone, load_operation(name), dose, all_weights(backbone, True), base, direction=DIRECTION
    )
    with change as n:
        assert (n, torch.equal(logits(backbone), expected)) == (0, True)


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != "transplant"])
def test_an_empty_region_changes_no_bit(name):
    backbone, base = pair()
    expected = logits(backbone)
    for dose in operation_cards()[name]["doses"]:
        with edited(backbone, load_operation(name), dose, all_weights(backbone, False), base) as n:
            assert (n, torch.equal(logits(backbone), expected)) == (0, True)


def ablated_by_hooks(backbone):
    """Logits with the direction taken out of everything that is added to the residual stream."""
    unit = (DIRECTION / DIRECTION.norm()).float()

    def hook(_module, _args, output):
        x, *rest = output if isinstance(output, tuple) else (output,)
        x = x - (x @ unit)[..., None] * unit
        return (x, *rest) if isinstance(output, tuple) else x

    added = [block.get_submodule(path) for block in backbone.blocks for path in backbone.family.contributions]
    modules = [backbone.model.get_input_embeddings(), *added]
    with attached([module.register_forward_hook(hook) for module in modules]):
        return logits(backbone)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", AS_THEY_ARE)
def test_orthogonal_weights_are_a_stream_without_the_direction(family, tied):
    """Also where the output head is tied to the embedding: it keeps its weights."""
    backbone = tiny_backbone(family, tie_word_embeddings=tied)
    plain, expected = logits(backbone), ablated_by_hooks(backbone)
    with without_direction(backbone, DIRECTION):
        found = logits(backbone)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert (expected - plain).abs().max() > 0.01, "without the direction the model says something else"
    assert torch.equal(logits(backbone), plain)


@pytest.mark.parametrize("family", FAMILIES)
def test_orthogonal_weights_are_those_of_the_definition_and_come_back(family):
    backbone, unit = tiny_backbone(family), (DIRECTION / DIRECTION.norm()).float()
    before, marks, head = (
        copies(backbone),
        fingerprint(backbone),
        backbone.model.get_output_embeddings().weight,
    )
    embedding = backbone.model.get_input_embeddings()
    own, values = embedding.weight, embedding.weight.detach().clone()
    with without_direction(backbone, 3 * DIRECTION) as n:
        after, embedded = copies(backbone), embedding.weight.detach()
        assert (embedded @ unit).abs().max() < 1e-5 and backbone.model.get_output_embeddings().weight is head
        torch.testing.assert_close(embedded, values - torch.outer(values @ unit, unit), rtol=1e-4, atol=1e-6)
    for where, weight in before.items():
        if where.endswith((".o", ".down")):
            assert (unit @ after[where]).abs().max() < 1e-5
            expected = weight - torch.outer(unit, unit @ weight)
            torch.testing.assert_close(after[where], expected, rtol=1e-4, atol=1e-6)
        else:
            assert torch.equal(after[where], weight)
    changed = [(values, embedded), *((before[where], after[where]) for where in before)]
    assert n == sum(int((one != other).sum()) for one, other in changed) > 0.99 * n_writing(backbone)
    assert embedding.weight is own and torch.equal(own, values) and fingerprint(backbone) == marks


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - set(AS_THEY_ARE)))
def test_a_norm_after_the_mlp_brings_the_direction_back(family):
    """Its factors turn what was orthogonal, so such models are left out."""
    backbone = tiny_backbone(family)
    plain, expected = logits(backbone), ablated_by_hooks(backbone)
    with without_direction(backbone, DIRECTION):
        error = (logits(backbone) - expected).abs().max()
    assert error > 0.1 * (expected - plain).abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_base_1_everywhere_is_the_base_and_transplant_1_the_aligned_model(dtype):
    backbone, base = pair(dtype=dtype)
    aligned = copies(backbone)
    with edited(backbone, load_operation("base"), 1.0, all_weights(backbone, True), base):
        assert all(torch.equal(weight, base[where]) for where, weight in backbone.weights())
    with edited(backbone, load_operation("transplant"), 1.0, all_weights(backbone, False), base):
        assert all(torch.equal(weight, base[where]) for where, weight in backbone.weights())
    with edited(backbone, load_operation("transplant"), 1.0, all_weights(backbone, True), base) as n:
        assert n == 0
        assert all(torch.equal(weight, aligned[where]) for where, weight in backbone.weights())


def test_permuting_keeps_the_values_of_every_row():
    backbone, _ = pair()
    region, before = some_units(backbone), copies(backbone)
    with edited(backbone, load_operation("permute"), 1.0, region):
        for where, weight in backbone.weights():
            for flags, old, new in zip(region.flags(where), before[where], weight.detach(), strict=True):
                assert torch.equal(old[flags].sort().values, new[flags].sort().values)
                assert torch.equal(old[~flags], new[~flags])


def test_permuting_constant_rows_changes_no_bit():
    backbone, _ = pair()
    with torch.no_grad():
        for _, weight in backbone.weights():
            weight.copy_(weight[:, :1].expand_as(weight).clone())
    with edited(backbone, load_operation("permute"), 1.0, all_weights(backbone, True)) as n:
        assert n == 0


def test_noise_has_the_size_that_the_dose_says():
    backbone, _ = pair(hidden_size=128)
    before = copies(backbone)
    with edited(backbone, load_operation("noise"), 0.38, all_weights(backbone, True)):
        for where, weight in backbone.weights():
            ratio = (weight.detach() - before[where]).std() / before[where].std(correction=0)
            assert float(ratio) == pytest.approx(0.38, rel=0.06)


@pytest.mark.parametrize("name", ["noise", "permute"])
def test_random_operations_repeat_with_the_seed(name):
    backbone, _ = pair()
    found = []
    for seed in (1, 1, 2):
        with edited(backbone, load_operation(name), 1.0, some_units(backbone), seed=seed):
            found.append(
                fingerprint(backbone) if name == "noise" else tuple(map(float, logits(backbone).ravel()))
            )
    assert found[0] == found[1] != found[2]


def test_weights_come_back_after_an_error():
    backbone, _ = pair()
    marks = fingerprint(backbone)
    with pytest.raises(RuntimeError), edited(backbone, load_operation("zero"), 1.0, some_units(backbone)):
        raise RuntimeError
    assert fingerprint(backbone) == marks


def test_a_base_of_another_shape_is_named():
    backbone, base = pair()
    base["layers.1.q"] = base["layers.1.q"][:, :3]
    change = edited(backbone, load_operation("base"), 1.0, all_weights(backbone, True), base)
    with pytest.raises(StudyError, match=r"base model: layers\.1\.q"), change:
        pass


@pytest.mark.parametrize(
    ("name", "dose", "expected"),
    [
        ("zero", 0.5, "1, because"),
        ("permute", 2, "1, because"),
        ("noise", -1, "0 or more"),
        ("scale", 1, "changes something"),
        ("base", 0, "changes something"),
        ("transplant", 0.5, None),
        ("scale", -1, None),
        ("safelora", 0.2, None),
        ("nlsr_patch", 0.7, None),
        ("rewind", 0, "changes something"),
    ],
)
def test_doses_are_checked(name, dose, expected):
    problems = dose_problems(name, [dose])
    assert problems[0][1].find(expected) >= 0 if expected else problems == []
