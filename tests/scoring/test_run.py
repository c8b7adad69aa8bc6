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


def test_shuffles_share_a_pass_and_nothing_else():
    together = tables(["a", "a~1", "a~2"])
    assert {name: tables([name])[name] for name in ("a", "a~1", "a~2")} == together
    assert together["a"] != together["a~1"] != together["a~2"]
    # Another set with the same prompts and the same seed gets another shuffle.
    assert tables(["b~1"])["b~1"] != together["a~1"] and tables(["b"])["b"] == together["a"]


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
