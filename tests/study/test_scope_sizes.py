"""The smallest number of units that a scope ranks follows from the shapes of the scored units."""

from math import prod

import pytest

from safety_regions.study.method_shelf import granularity_of, method_cards
from safety_regions.study.scope_sizes import smallest_scope
from safety_regions.units.addresses import parse_address
from safety_regions.units.granularity import GRANULARITIES
from tests.methods.test_conformance import LAYERS, RANK, backbone_of, expected_shapes
from tests.study.test_checkpoints import as_counts

LABELS = {
    "matrix": lambda where: where,
    "layer": lambda where: parse_address(where).layer,
    "global": lambda where: None,
}


@pytest.mark.parametrize("family", ["llama3", "gemma2"])
@pytest.mark.parametrize("method", method_cards())
def test_sizes_are_those_of_what_is_scored(method, family):
    granularity, backbone = granularity_of(method), backbone_of(family)
    counts, shapes = as_counts(backbone), expected_shapes(granularity, backbone)
    for scope in granularity.scopes:
        if scope == "row":
            expected = min(shape[-1] for shape in shapes.values())
        else:
            sizes = {}
            for where, shape in shapes.items():
                label = LABELS[scope](where)
                sizes[label] = sizes.get(label, 0) + prod(shape)
            expected = min(sizes.values())
        assert smallest_scope(counts, granularity, scope, RANK) == expected
    assert counts["layers"] == LAYERS


def test_only_projections_that_a_method_scores_count():
    """The smallest matrix of all neurons is that of k, which a method of feed-forward neurons does not score."""
    counts, kind = as_counts(backbone_of("llama3")), granularity_of("cna")
    assert kind.projections == ("up", "down")
    sizes = {scope: smallest_scope(counts, kind, scope, None) for scope in kind.scopes}
    assert sizes == {"matrix": 48, "layer": 96, "global": 96 * LAYERS}
    assert smallest_scope(counts, GRANULARITIES["neuron"], "matrix", None) == 16


def test_what_is_not_known_is_not_guessed():
    weight, lora = GRANULARITIES["weight"], GRANULARITIES["lora_weight"]
    counts = as_counts(backbone_of("llama3"))
    assert smallest_scope({"layers": 4}, weight, "row", 8) is None
    assert smallest_scope(counts, lora, "row", None) is None
    unlayered = {key: value for key, value in counts.items() if key != "layers"}
    assert smallest_scope(unlayered, weight, "global", None) is None
