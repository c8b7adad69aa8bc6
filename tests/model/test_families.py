"""A family's file must describe its models correctly, and every family must have a tiny backbone."""

import ast

import pytest
import torch
from transformers.activations import ACT2FN

from safety_regions import families as shelf
from safety_regions.families import families
from tests.oracles.neurons import linear_of, rows_of, run_blocks
from tests.paths import ROOT
from tests.tiny import FAMILIES, tiny_backbone

IDS = torch.randint(0, 256, (12,), generator=torch.Generator().manual_seed(5)).tolist()
FILES = sorted(
    path for path in (ROOT / "safety_regions" / "families").glob("*.py") if path.stem != "__init__"
)


def test_every_family_has_a_tiny_backbone():
    assert {tiny_backbone(name).family.name for name in FAMILIES} == set(families())


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_a_file_is_a_docstring_and_a_table(file):
    docstring, imported, table = ast.parse(file.read_text(encoding="utf-8")).body
    assert isinstance(docstring, ast.Expr) and isinstance(docstring.value.value, str)
    assert ast.unparse(imported) == f"from {shelf.__name__} import Family"
    assert isinstance(table, ast.Assign) and families()[file.stem].name == file.stem
    made = {node.func.id for node in ast.walk(table) if isinstance(node, ast.Call)}
    assert made == {"Family"} and not any(isinstance(node, ast.Lambda) for node in ast.walk(table))


@pytest.mark.parametrize("family", FAMILIES)
def test_gate_up_and_down_are_what_they_are_called(family):
    """down must read act(gate) * up. Tests with SafeNeuron's oracle, which computes attention, cover q, k, v and o."""
    backbone, seen = tiny_backbone(family, mlp_bias=False), {}
    model, blocks = run_blocks(backbone, IDS)
    activation = getattr(model.config, "hidden_activation", None) or model.config.hidden_act
    for block in blocks:
        linear_of(model, "down", block.mlp).register_forward_pre_hook(
            lambda _module, args: seen.__setitem__("down", args[0])
        )
        block.mlp(block.mlp_input)
        gate, up = (block.mlp_input @ rows_of(model, p, block.mlp).T for p in ("gate", "up"))
        torch.testing.assert_close(seen["down"], ACT2FN[activation](gate) * up)
        assert seen["down"].abs().max() > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_a_block_adds_what_its_contributing_modules_put_out(family):
    """A block must add the sum of the modules' outputs, up to one factor (Granite's)."""
    backbone, seen = tiny_backbone(family, dtype=torch.float64), {}
    block = backbone.blocks[1]
    for name in backbone.family.contributions:
        block.get_submodule(name).register_forward_hook(
            lambda _module, _args, output, name=name: seen.__setitem__(
                name, output[0] if isinstance(output, tuple) else output
            )
        )
    block.register_forward_hook(lambda _module, args, output: seen.__setitem__("block", output - args[0]))
    backbone.model(input_ids=torch.tensor([IDS]))
    added = seen.pop("block")
    assert len(seen) == 2
    summed = sum(seen.values())
    factor = (added * summed).sum() / summed.square().sum()
    torch.testing.assert_close(added, factor * summed)
    assert factor > 0.1
