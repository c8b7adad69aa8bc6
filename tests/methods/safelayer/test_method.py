"""SafeLayer against its definition on every family: curves, scores, the columns and the metadata they end in."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safety_regions.errors import StudyError
from safety_regions.formats.contracts import LAYER_SCORES
from safety_regions.formats.parquet import conform
from safety_regions.methods.safelayer import method as safelayer
from safety_regions.model.backbone import attached
from safety_regions.scoring.keep import as_table, keep_top
from safety_regions.scoring.samples import Samples
from safety_regions.study.config import read_study
from safety_regions.study.method_shelf import method_cards
from safety_regions.units.granularity import GRANULARITIES
from safety_regions.units.selections import parse_selection
from tests.methods.safelayer.test_angles import samples_of
from tests.oracles import layers as oracle
from tests.tiny import FAMILIES, tiny_backbone

OPTIONS = {name: rule["default"] for name, rule in method_cards()["safelayer"]["options"].items()}
MALICIOUS, NORMAL = samples_of(5, 1, "m"), samples_of(4, 2, "n")


def gather(backbone, malicious=MALICIOUS, normal=NORMAL, batch_size=3, **options):
    samples = Samples(malicious, contrast=normal, batch_size=batch_size)
    return safelayer.gather(backbone, samples, OPTIONS | options)


def details(backbone, evidence):
    return safelayer.details(backbone, evidence, OPTIONS, "layers")


def scores(backbone, evidence) -> torch.Tensor:
    ((address, values),) = safelayer.scores(backbone, evidence, OPTIONS)
    assert address == "layers" and values.dtype == torch.float32
    return values


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("options", [{}, {"average": "cosine", "last_layer": "raw"}])
def test_curves_and_scores_are_their_definition(family, options):
    backbone = tiny_backbone(family)
    evidence = gather(backbone, **options)
    normed = options.get("last_layer") != "raw"
    states = [
        {s.prompt_id: oracle.last_prompt_states(backbone, s, normed) for s in side}
        for side in (NORMAL, MALICIOUS)
    ]
    expected = []
    for layer in range(len(backbone.blocks)):
        normal, malicious = ({prompt: vectors[layer] for prompt, vectors in side.items()} for side in states)
        expected.append(oracle.pair_means(normal, malicious, options.get("average", "angle")))
    within, between, harmful = torch.tensor(expected, dtype=torch.float64).T
    curves, close = details(backbone, evidence), {"rtol": 0, "atol": 1e-3}
    torch.testing.assert_close(curves["normal_normal"], within, **close)
    torch.testing.assert_close(curves["normal_malicious"], between, **close)
    torch.testing.assert_close(curves["malicious_malicious"], harmful, **close)
    torch.testing.assert_close(curves["gap"], between - within, **close)
    gap = [0.0, *(between - within).tolist()]
    steps = torch.tensor([after - before for before, after in pairwise(gap)])
    torch.testing.assert_close(scores(backbone, evidence), steps, **close)


def test_order_and_responses_change_nothing():
    backbone = tiny_backbone("llama")
    one = gather(backbone)["layers"]
    cut = [sample._replace(ids=[*sample.ids[: sample.prompt_length], 9]) for sample in MALICIOUS]
    for again in (gather(backbone, MALICIOUS[::-1], NORMAL[::-1]), gather(backbone, cut)):
        torch.testing.assert_close(again["layers"], one, rtol=0, atol=1e-3)


def test_a_set_has_no_gap_to_itself():
    backbone = tiny_backbone("llama")
    evidence = gather(backbone, NORMAL, NORMAL)
    assert not scores(backbone, evidence).any()
    assert safelayer.findings(backbone, evidence, OPTIONS)["gap"] is None


def test_the_table_holds_the_curves_and_the_metadata_the_range():
    backbone = tiny_backbone("llama")
    evidence = gather(backbone)
    ((address, values, mask),) = keep_top(
        lambda: safelayer.scores(backbone, evidence, OPTIONS), {"global": 1.0}
    )
    table = conform(
        as_table(GRANULARITIES["layer"], address, values, mask, details(backbone, evidence)), LAYER_SCORES
    )
    assert table["layer"].to_pylist() == [0, 1, 2]
    rows = table.to_pydict()
    differences = [b - a for a, b in zip(rows["normal_normal"], rows["normal_malicious"], strict=True)]
    assert rows["gap"] == pytest.approx(differences)
    assert rows["score"] == pytest.approx(
        [b - a for a, b in zip([0, *rows["gap"]], rows["gap"], strict=False)], abs=1e-5
    )
    found = safelayer.findings(backbone, evidence, OPTIONS)
    first, last = found["gap"]
    assert all(rows["score"][layer] >= found["threshold_rise"] - 1e-5 for layer in range(first, last + 1))
    assert found["largest_rise"] == pytest.approx(max(rows["score"]))


def test_no_pair_is_null_in_the_table():
    backbone = tiny_backbone("llama")
    evidence = gather(backbone, MALICIOUS[:1])
    assert all(math.isnan(x) for x in details(backbone, evidence)["malicious_malicious"])
    table = as_table(
        GRANULARITIES["layer"],
        "layers",
        scores(backbone, evidence),
        torch.ones(3, dtype=torch.bool),
        details(backbone, evidence),
    )
    assert conform(table, LAYER_SCORES)["malicious_malicious"].null_count == 3


def test_a_gap_that_a_layer_is_made_to_open_is_found():
    """Blocks hand on a vector that is nearly the same for all prompts; block 2 turns it for malicious ones."""
    backbone = tiny_backbone("llama", num_hidden_layers=4)
    malicious = [sample._replace(ids=[200, *sample.ids[1:]]) for sample in MALICIOUS]
    normal = [sample._replace(ids=[199, *sample.ids[1:]]) for sample in NORMAL]
    embedding = backbone.model.get_input_embeddings().weight
    embedding[200], embedding[199] = 0.0, 0.0
    embedding[200, 0] = 1.0
    turn = 30 * torch.nn.functional.one_hot(torch.tensor(3), 32).float()
    marked = {}

    def hook_of(layer, block):
        def hook(_module, args, _output):
            if layer == 0:
                marked["first"] = args[0][:, :1, :1]
                return 1 + 0.1 * args[0].sum(-1, keepdim=True).tanh().expand_as(args[0]) * turn.roll(1)
            return args[0] + (layer == 2) * marked["first"] * turn

        return block.register_forward_hook(hook)

    with attached([hook_of(layer, block) for layer, block in enumerate(backbone.blocks)]):
        evidence = gather(backbone, malicious, normal, last_layer="raw")
    assert safelayer.findings(backbone, evidence, OPTIONS)["gap"] == (2, 2)
    assert int(scores(backbone, evidence).argmax()) == 2


@given(st.integers(0, 2**40))
def test_a_shuffle_moves_whole_layers(seed):
    evidence = {"layers": torch.arange(36, dtype=torch.float64).view(3, 12)}
    shuffled = safelayer.shuffle(evidence, seed)["layers"]
    order = shuffled[0].long()
    assert sorted(order.tolist()) == list(range(12))
    assert torch.equal(shuffled, evidence["layers"][:, order])


@pytest.mark.parametrize("n", [0, 1])
def test_one_normal_prompt_is_too_few(n):
    with pytest.raises(StudyError, match=f"contrast: found {n} normal prompts"):
        gather(tiny_backbone("llama"), normal=NORMAL[:n])


CONFIG = {
    "backbones": ["qwen3-0.6b"],
    "datasets": {"identification": ["fraud"], "utility": ["everyday"]},
}


def test_its_selections_and_its_question_set_are_known_to_the_config():
    methods = {"safelayer": {"selections": ["range", "gap", "global-0.25"]}}
    study = read_study({**CONFIG, "methods": methods})
    assert study.methods["safelayer"].selections == ("range", "gap", "global-0.25")
    assert study.datasets["over-rejection"]["role"] == "over-rejection"
    assert parse_selection("range") is None


BAD = {
    "a range of weights": ({"snip": {"selections": ["range"]}}, "'range'"),
    "a range with a fraction": (
        {"safelayer": {"selections": ["range-0.5"]}},
        "or e.g. range (the range of layers",
    ),
    "a scope layers do not have": ({"safelayer": {"selections": ["row-0.5"]}}, "global-fraction"),
    "an unknown question set": (
        {"safelayer": {"options": {"over_rejection": "over-reject"}}},
        "'over-rejection'",
    ),
    "a question set that is none": (
        {"safelayer": {"options": {"over_rejection": "fraud"}}},
        "role identification",
    ),
    "alpha that scales nothing": ({"safelayer": {"options": {"alpha": 1}}}, "alpha"),
    "an even window": ({"safelayer": {"options": {"smoothing": 4}}}, "smoothing"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_configs_say_what_to_mend(case):
    methods, expected = BAD[case]
    with pytest.raises(StudyError) as raised:
        read_study({**CONFIG, "methods": methods})
    assert expected in str(raised.value)
