"""Names of the same prompts share one pass, each has a score table, and the floor of noise is the overlap of noise."""

from itertools import combinations

import pytest
import torch

from safety_regions.methods import load_method, snip, wanda
from safety_regions.scoring.evidence import shuffle_evidence
from safety_regions.scoring.keep import top_of_rows
from safety_regions.scoring.run import Job, score
from safety_regions.scoring.samples import Chosen, Samples
from safety_regions.units.names import parse_name
from tests.methods.test_weights import SNIP, WANDA, samples_of
from tests.tiny import tiny_backbone

ALL = {"row": 1.0, "matrix": 1.0}


def tables(names, prompts=("one", "two words", "three words here")):
    rows = [{"prompt_id": f"a/{i}", "prompt": text, "response": "No."} for i, text in enumerate(prompts)]
    job = Job(load_method("wanda"), WANDA, ALL, batch_size=2)
    scored = score(tiny_backbone("llama"), [parse_name(n) for n in names], job, Chosen(rows, {}))
    return {s.metadata["name"]: [group.to_pydict() for group, _ in s.groups] for s in scored}


@pytest.mark.slow
def test_shuffles_share_a_pass_and_nothing_else():
    together = tables(["a", "a~1", "a~2"])
    assert {name: tables([name])[name] for name in ("a", "a~1", "a~2")} == together
    assert together["a"] != together["a~1"] != together["a~2"]
    # Another set with the same prompts and the same seed gets another shuffle.
    assert tables(["b~1"])["b~1"] != together["a~1"] and tables(["b"])["b"] == together["a"]


POOL = {"a": ("one", "two words"), "b": ("three words here", "four", "one")}


def table_of(name, method, options, prompts):
    """Return the score groups of one name; ``prompts``: set -> its prompts."""
    rows = [
        {"prompt_id": f"{part}/{i}", "prompt": text, "response": "No " + text}
        for part, texts in prompts.items()
        for i, text in enumerate(texts)
    ]
    chosen = Chosen(rows, {}, tuple(map(len, prompts.values())))
    job = Job(load_method(method), options, ALL, batch_size=2)
    [scores] = score(tiny_backbone("llama"), [parse_name(name)], job, chosen)
    assert scores.metadata["name"] == name
    return {
        a: group.stored["score"].to_numpy()
        for a, group in zip(scores.metadata["shapes"], scores.groups, strict=True)
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["", "r", "m"])
def test_a_pool_of_shuffles_is_the_mean_of_its_members_shuffled_alone(kind):
    """SNIP's scores are |W| times a mean over prompts, so the pool's are the mean of its members', by prompts."""
    pool = table_of(f"a~1{kind}+b~1{kind}", "snip", SNIP, POOL)
    a, b = (table_of(f"{name}~1{kind}", "snip", SNIP, {name: POOL[name]}) for name in "ab")
    plain = table_of(f"a+b~1{kind}", "snip", SNIP, POOL)
    for address, scores in pool.items():
        assert scores == pytest.approx((2 * a[address] + 3 * b[address]) / 5, rel=1e-4, abs=1e-9)
        assert scores != pytest.approx(plain[address], rel=1e-2)


def test_members_with_the_same_prompts_are_shuffled_apart():
    """If two sets moved alike, their pool would be as peaked as one set, and no null of independent sets."""
    same = {"a": POOL["a"], "b": POOL["a"]}
    alone, pooled = (
        table_of(n, "wanda", WANDA, p) for n, p in (("a~1", {"a": POOL["a"]}), ("a~1+b~1", same))
    )
    assert not all(scores == pytest.approx(alone[address]) for address, scores in pooled.items())


def test_a_member_moves_alike_in_every_pool():
    """Pools of equal size take fewer prompts of each set, but growing pools must share the members they share."""
    few, whole = (table_of(f"a{block}~1", "wanda", WANDA, {"a": POOL["a"]}) for block in ("@2", ""))
    assert any(few[a] != pytest.approx(whole[a]) for a in few), (
        "by themselves, names are shuffled by their text"
    )
    blocks, sets = (table_of(n, "wanda", WANDA, POOL) for n in ("a@2~1+b@2~1", "a~1+b~1"))
    assert all(blocks[a] == pytest.approx(sets[a]) for a in blocks)


@pytest.mark.parametrize("method,options", [(snip, SNIP), (wanda, WANDA)])
def test_a_pool_is_a_set_with_both_sets_prompts(method, options):
    backbone, samples = tiny_backbone("qwen3"), samples_of(6)
    evidence = [
        method.gather(backbone, Samples(order, batch_size=4), options) for order in (samples, samples[::-1])
    ]
    for address, values in evidence[0].items():
        assert torch.equal(values, evidence[1][address])


def iou(a: dict, b: dict) -> float:
    both = sum(int((a[where] & b[where]).sum()) for where in a)
    return both / sum(int((a[where] | b[where]).sum()) for where in a)


def test_a_floor_within_rows_is_the_overlap_of_rows_of_noise():
    """Rows of unlike scale, noise within each: ranked in rows, only a shuffle within rows is exchangeable.

    A shuffle over the whole matrix would bring the scales of all rows into each row. This wider spread drowns the
    weights, and the floor would be too low.
    """
    generator = torch.Generator().manual_seed(0)
    weight = torch.rand(64, 400, generator=generator) + 0.2
    scale = torch.logspace(-2, 2, 64)[:, None]
    evidence = {name: {"layers.0.q": scale * torch.rand(64, 400, generator=generator)} for name in "abcdef"}

    def region(found):
        return {"layers.0.q": top_of_rows(weight * found["layers.0.q"], 20)}

    def ious(regions):
        return torch.tensor([iou(regions[a], regions[b]) for a, b in combinations(regions, 2)])

    measured = ious({name: region(found) for name, found in evidence.items()})
    floors = {
        kind: ious(
            {
                name: region(shuffle_evidence(found, seed, kind))
                for seed, (name, found) in enumerate(evidence.items())
            }
        )
        for kind in ("r", "")
    }
    error = ((measured.var() + floors["r"].var()) / len(measured)).sqrt()
    assert (measured.mean() - floors["r"].mean()).abs() < 4 * error
    assert floors[""].mean() < 0.75 * measured.mean()


def test_the_floor_of_pure_noise_is_the_overlap_of_pure_noise():
    """Regions of pure noise overlap as much before a shuffle as after it, and more than twice as much as by chance."""
    backbone = tiny_backbone("llama3", hidden_size=64, intermediate_size=96)
    generator = torch.Generator().manual_seed(0)
    noise = {
        name: {a: torch.rand(s, generator=generator).pow(2) for a, s in backbone.shapes.items()}
        for name in "abcdef"
    }

    def region(evidence):
        return {a: top_of_rows(s, max(1, s.shape[1] // 20)) for a, s in snip.scores(backbone, evidence, SNIP)}

    raw = {name: region(evidence) for name, evidence in noise.items()}
    shuffled = {
        name: region(shuffle_evidence(evidence, seed)) for seed, (name, evidence) in enumerate(noise.items())
    }
    measured, floors = (
        torch.tensor([iou(regions[a], regions[b]) for a, b in combinations(noise, 2)])
        for regions in (raw, shuffled)
    )
    error = ((measured.var() + floors.var()) / len(measured)).sqrt()
    assert (measured.mean() - floors.mean()).abs() < 4 * error
    assert floors.mean() > 2 * 0.05 / (2 - 0.05)
