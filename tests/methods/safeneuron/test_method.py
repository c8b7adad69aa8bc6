"""SafeNeuron against removing one unit at a time, and what must not change what it finds."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from safety_regions.errors import StudyError
from safety_regions.formats.contracts import NEURON_SCORES
from safety_regions.formats.parquet import read_table, write_groups
from safety_regions.methods import load_method
from safety_regions.methods.safeneuron import method as safeneuron
from safety_regions.methods.safeneuron.formulas import FORMULAS
from safety_regions.methods.safeneuron.removal import softmax_changes
from safety_regions.methods.safeneuron.selection import select_agreed
from safety_regions.model.backbone import Backbone
from safety_regions.model.batches import Sample, batches
from safety_regions.regions.select import select_region
from safety_regions.scoring.attention import watched_attention
from safety_regions.scoring.ranks import rank_units, worst_rank_scores
from safety_regions.scoring.run import Job, score
from safety_regions.scoring.samples import Chosen, Samples
from safety_regions.study.method_shelf import method_cards
from safety_regions.units.names import parse_name
from tests.oracles import neurons as oracle
from tests.tiny import FAMILIES, tiny_backbone

PAPER = {"importance": "paper", "tokens": "prompt", "index_bug": False}
RELEASED = PAPER | {"importance": "released"}
PROMPTS = ["aaa", "bbbb", "ccccc", "dddddd", "eeeeeee"]
PROJECTIONS = ("q", "k", "v", "up", "down")
BOTH = {"layer_types": ["sliding_attention", "full_attention"]}
# Every family with two layers, prompts on both sides of the window, and a soft-cap that bites.
CASES = {family: (family, {"num_hidden_layers": 2}) for family in FAMILIES} | {
    "gemma3": ("gemma3", {"num_hidden_layers": 2, **BOTH}),
    "qwen2 with a window": (
        "qwen2",
        {"num_hidden_layers": 2, "use_sliding_window": True, "sliding_window": 4, **BOTH},
    ),
    "llama3 with biases": ("llama3", {"num_hidden_layers": 2, "attention_bias": True, "mlp_bias": True}),
    "gemma2 with a low cap": ("gemma2", {"num_hidden_layers": 2, "attn_logit_softcapping": 0.5}),
}


def samples_of(*lengths: int, seed: int = 3) -> list[Sample]:
    """Random prompts of these lengths, each with a response of three tokens."""
    generator = torch.Generator().manual_seed(seed)
    return [
        Sample(f"p{i}", torch.randint(0, 256, (n + 3,), generator=generator).tolist(), n)
        for i, n in enumerate(lengths)
    ]


def importances(backbone: Backbone, samples: list[Sample], options: dict, batch_size: int = 3) -> dict:
    """Address -> importances, (units, prompts), descending."""
    evidence = safeneuron.gather(backbone, Samples(samples, batch_size=batch_size), options)
    addresses = [address for address, _ in safeneuron.scores(backbone, evidence, options)]
    return {a: safeneuron.details(backbone, evidence, options, a)["importances"] for a in addresses}


def assert_close(found: dict, expected: dict, tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for address, values in found.items():
        scale = expected[address].abs().max()
        assert scale > 0, address
        error = (values.double() - expected[address]).abs().max() / scale
        assert error < tolerance, f"{address}: {error:.1e}"


@pytest.mark.parametrize("case", CASES)
def test_the_oracle_attends_as_the_model_does(case):
    family, changes = CASES[case]
    model, blocks = oracle.run_blocks(tiny_backbone(family, **changes), samples_of(9)[0].ids[:9])
    for layer, block in enumerate(blocks):
        mixed = oracle.attention_output(oracle.states_of(model, block, layer))
        with torch.no_grad():
            torch.testing.assert_close(
                oracle.linear_of(model, "o", block.attention)(mixed),
                block.attention(**block.attention_inputs)[0][0],
                rtol=1e-5,
                atol=1e-6,
            )


@pytest.mark.slow
@pytest.mark.parametrize("options,define", [(PAPER, oracle.paper), (RELEASED, oracle.released)])
@pytest.mark.parametrize("case", CASES)
def test_importance_is_what_removal_changes(case, options, define):
    family, changes = CASES[case]
    backbone = tiny_backbone(family, **changes)
    for sample in samples_of(9, 4):
        found = {a: v[:, 0] for a, v in importances(backbone, [sample], options).items()}
        assert_close(found, define(backbone, sample.ids[: sample.prompt_length]), tolerance=1e-5)


def test_the_index_bug_of_the_released_code_names_other_rows():
    backbone, (sample,) = tiny_backbone("llama3", num_hidden_layers=1), samples_of(6)
    found = {a: v[:, 0] for a, v in importances(backbone, [sample], RELEASED | {"index_bug": True}).items()}
    assert_close(found, oracle.released(backbone, sample.ids[:6], index_bug=True), tolerance=1e-5)
    right = importances(backbone, [sample], RELEASED)
    moved = {a for a in found if not torch.allclose(found[a], right[a][:, 0])}
    assert moved == {"layers.0.k", "layers.0.v"}


def test_the_response_counts_only_when_asked_for():
    backbone, samples = tiny_backbone("qwen3"), samples_of(5, 8)
    prompts = [s._replace(ids=[*s.ids[: s.prompt_length], 7]) for s in samples]
    whole = [s._replace(prompt_length=len(s.ids)) for s in samples]
    everything = PAPER | {"tokens": "all"}
    assert_close(importances(backbone, samples, PAPER), importances(backbone, prompts, PAPER), 1e-6)
    assert_close(importances(backbone, samples, everything), importances(backbone, whole, PAPER), 1e-6)
    found, expected = importances(backbone, samples, everything), importances(backbone, samples, PAPER)
    assert all((found[a] - expected[a]).norm() > 1e-2 * expected[a].norm() for a in found)


@pytest.mark.parametrize("entries", [1, 100, 700, 10**6])
def test_the_size_of_chunks_changes_nothing(entries):
    backbone, (sample,) = tiny_backbone("gemma2"), samples_of(9)
    (batch,) = batches([sample], 1)
    with watched_attention(backbone) as given, torch.no_grad():
        backbone.decoder(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)
    attention = given[1].sample(0, 9)
    removed = []

    def remove(attention, logits, product):
        removed.append(product.numel())
        return attention.cap(logits - attention.scaling * product)

    found = softmax_changes(attention, remove, entries)
    assert max(removed) <= max(entries, 9 * 9) and sum(removed) == 4 * 12 * 9 * 9
    whole = softmax_changes(attention, lambda a, logits, product: a.cap(logits - a.scaling * product))
    torch.testing.assert_close(found, whole, rtol=1e-6, atol=1e-7)


def test_q_and_k_share_their_importance_where_each_head_has_its_own_keys():
    found = importances(tiny_backbone("llama"), samples_of(7, 5), PAPER)
    for layer in range(3):
        assert torch.equal(found[f"layers.{layer}.q"], found[f"layers.{layer}.k"])


def test_a_bfloat16_model_is_measured_in_float32():
    backbone, samples = tiny_backbone("gemma3", dtype=torch.bfloat16), samples_of(7, 12)
    found = importances(backbone, samples, PAPER)
    assert {v.dtype for v in found.values()} == {torch.float32}
    exact = tiny_backbone("gemma3")
    exact.model.load_state_dict(backbone.model.state_dict())
    assert_close(found, importances(exact, samples, PAPER), tolerance=0.1)


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_is_as_before_also_after_an_error(family):
    backbone = tiny_backbone(family)
    usual = backbone.family.attention_implementation
    backbone.model.set_attn_implementation(usual)
    importances(backbone, samples_of(5), PAPER)
    with pytest.raises(RuntimeError, match="half-way"), watched_attention(backbone):
        raise RuntimeError("half-way")
    assert backbone.config._attn_implementation == usual and "eager" not in ALL_ATTENTION_FUNCTIONS


def test_the_implementation_of_attention_changes_nothing():
    eager, sdpa = tiny_backbone("mistral"), tiny_backbone("mistral")
    sdpa.model.set_attn_implementation("sdpa")
    samples = samples_of(5, 12)
    assert_close(importances(sdpa, samples, PAPER), importances(eager, samples, PAPER), tolerance=1e-9)


@pytest.mark.parametrize("formula,weight", [("paper", 1e25), ("released", 3e38)])
def test_a_value_that_is_not_finite_names_address_and_prompt(formula, weight):
    """Dimension 5 is token 7's alone, and drives neuron 3: its input is finite, its square or its sum is not."""
    backbone = tiny_backbone("llama3")
    with torch.no_grad():
        embedding, block = backbone.model.get_input_embeddings().weight, backbone.blocks[0]
        embedding[:, 5], embedding[7, 5], block.self_attn.o_proj.weight[5] = 0, 100, 0
        block.post_attention_layernorm.weight[5] = 1
        block.mlp.up_proj.weight[3] = 0
        block.mlp.up_proj.weight[3, 5] = weight
    samples = [Sample("a/1", [1, 2, 3, 4], 3), Sample("a/2", [1, 2, 7, 4], 3)]
    with pytest.raises(StudyError, match=r"layers\.0\.up: found values that are not finite for a/2;"):
        safeneuron.gather(backbone, Samples(samples), PAPER | {"importance": formula})


values = st.sampled_from([0.0, 1.0, 1.0, 2.5, 3.0, 1e-30])
measured = (
    st.integers(1, 6)
    .flatmap(lambda n: st.lists(st.lists(values, min_size=n, max_size=n), min_size=1, max_size=5))
    .map(torch.tensor)
)


@given(measured)
def test_ranks_are_places_in_a_sort(rows):
    for importances, ranks in zip(rows.tolist(), rank_units(rows).tolist(), strict=True):
        order = sorted(range(len(importances)), key=lambda i: (-importances[i], i))
        assert [order[rank - 1] for rank in ranks] == list(range(len(importances)))


def test_equal_importances_rank_by_index():
    assert rank_units(torch.ones(2, 5000)).tolist() == [list(range(1, 5001))] * 2


@given(measured, st.data())
def test_the_score_orders_units_by_the_intersection_they_belong_to(rows, data):
    n = rows.shape[1]
    k = data.draw(st.integers(1, n))
    firsts = [set(sorted(range(n), key=lambda i: (-row[i], i))[:k]) for row in rows.tolist()]
    bar = torch.tensor(float(n + 1 - k)) / n
    assert set((worst_rank_scores(rows) >= bar).nonzero().flatten().tolist()) == set.intersection(*firsts)


def score_file(path, backbone: Backbone, name: str = "a", n: int = 5, **options):
    """The score table of a few prompts, as the workflow's job writes it."""
    rows = [{"prompt_id": f"a/{i}", "prompt": PROMPTS[i], "response": "No."} for i in range(n)]
    kept = {"matrix": 1.0, "layer": 1.0, "global": 1.0}
    job = Job(load_method("safeneuron"), PAPER | options, kept, batch_size=2)
    [(groups, metadata)] = score(backbone, [parse_name(name)], job, Chosen(rows, {}))
    write_groups(
        path,
        (group.stored for group in groups),
        NEURON_SCORES,
        {"backbone": "tiny", "name": name, **metadata},
    )
    return path


def by_prompt(backbone: Backbone, n: int = 5) -> dict[str, torch.Tensor]:
    """Importances of the prompts of `score_file`: address -> (prompts, units), one prompt at a time."""
    samples = [backbone.encode(prompt, "No.") for prompt in PROMPTS[:n]]
    found = [importances(backbone, [Sample("x", s.ids, s.prompt_length)], PAPER) for s in samples]
    return {address: torch.cat([f[address].T for f in found]) for address in found[0]}


def units_of(region) -> dict[str, set[int]]:
    return {where: set(region.flags(where).nonzero()[0].tolist()) for where in region.shapes}


def test_from_prompts_to_regions(tmp_path):
    """One stored file gives every fraction, presence and threshold, as counting prompt by prompt does."""
    backbone = tiny_backbone("qwen3")
    path = score_file(tmp_path / "scores", backbone)
    measured = by_prompt(backbone)
    assert set(measured) == {f"layers.{i}.{p}" for i in range(3) for p in PROJECTIONS}
    for fraction, presence, needed in ((0.25, 1.0, 5), (0.5, 0.6, 3), (0.5, 0.5, 3), (0.75, 0.01, 1)):
        found = units_of(select_agreed(path, "common", fraction, presence))
        for where, rows in measured.items():
            k = int(fraction * rows.shape[1])
            firsts = [set(row.argsort(descending=True, stable=True)[:k].tolist()) for row in rows]
            votes = {u: sum(u in first for first in firsts) for u in range(rows.shape[1])}
            assert found[where] == {u for u, n in votes.items() if n >= needed}, where
    threshold = round(float(measured["layers.1.q"].median()), 4)
    found = units_of(select_agreed(path, "above", threshold, 0.8))
    assert 0 < len(found["layers.1.q"]) < 48
    for where, rows in measured.items():
        assert found[where] == set(((rows >= threshold).sum(0) >= 4).nonzero().flatten().tolist()), where


def test_what_all_prompts_agree_on_is_among_the_best_scored(tmp_path):
    backbone = tiny_backbone("llama3")
    path = score_file(tmp_path / "scores", backbone)
    agreed, best = select_agreed(path, "common", 0.5), select_region(path, "matrix", 0.5)
    assert all(units_of(agreed)[where] <= units for where, units in units_of(best).items())
    assert 0 < agreed.n_selected < best.n_selected == best.n_units // 2
    one = score_file(tmp_path / "one", backbone, n=1)
    assert units_of(select_agreed(one, "common", 0.5)) == units_of(select_region(one, "matrix", 0.5))
    assert select_region(path, "global", 0.1).n_selected == best.n_units // 10


def test_the_same_job_writes_the_same_bytes(tmp_path):
    paths = [score_file(tmp_path / f"{i}", tiny_backbone("gemma2", num_hidden_layers=1)) for i in range(2)]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_shuffle_moves_units_and_keeps_the_two_sides_of_a_neuron_together(tmp_path):
    backbone = tiny_backbone("llama3", num_hidden_layers=1)
    tables = {
        name: read_table(score_file(tmp_path / name, backbone, name), NEURON_SCORES).to_pandas()
        for name in ("a", "a~1", "a~2")
    }
    lists = {
        (name, projection): table["importances"][table["projection"] == projection].tolist()
        for name, table in tables.items()
        for projection in PROJECTIONS
    }
    for projection in ("q", "k", "v"):  # whole units in other places
        plain, first, second = (list(map(tuple, lists[name, projection])) for name in tables)
        assert (
            sorted(plain) == sorted(first) == sorted(second)
            and len({*map(tuple, (plain, first, second))}) == 3
        )
    norms = backbone.blocks[0].mlp.down_proj.weight.norm(dim=0)
    hidden = {name: torch.tensor(np.stack(lists[name, "up"])) / norms[:, None] for name in tables}
    for name in ("a~1", "a~2"):  # the weights stay, what multiplies them moves
        assert np.array_equal(np.stack(lists[name, "up"]), np.stack(lists[name, "down"]))
        assert not torch.allclose(hidden[name], hidden["a"])
        torch.testing.assert_close(hidden[name].sort(dim=0).values, hidden["a"].sort(dim=0).values)


def test_the_card_names_formulas_there_are():
    card = method_cards()["safeneuron"]
    assert set(card["options"]["importance"]["enum"]) == set(FORMULAS)
    assert card["presets"]["plnd_code"]["options"]["importance"] in FORMULAS
