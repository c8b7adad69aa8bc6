"""A simulation with known truth: sets that share nothing but the weights do not converge, however many are pooled."""

from functools import reduce

import pyarrow as pa
import pytest
import torch

from safety_regions.formats.contracts import POOLS
from safety_regions.report.verdict.measure import measure
from safety_regions.report.verdict.sentences import SETTLED
from safety_regions.scoring.evidence import merge_means, shuffle_evidence
from tests.report import synthetic_tables as synthetic

CELL = ("llama", "snip", "row-0.05", "raw")
UNITS, KEPT, SETS = 20_000, 1_000, 16
WHERE = "layers.0.q"


def region(weight: torch.Tensor, members: list[dict]) -> torch.Tensor:
    """Return whether each unit is in the region of a pool: the best 5 % by |W| times the mean evidence."""
    pool = reduce(
        lambda done, more: (merge_means(done[0], more, done[1], 1), done[1] + 1), members[1:], (members[0], 1)
    )
    scores = weight * pool[0][WHERE]
    flags = torch.zeros(UNITS, dtype=torch.bool)
    flags[scores.flatten().topk(KEPT).indices] = True
    return flags


def ious(weight: torch.Tensor, sets: list[dict]) -> dict[str, float]:
    """Return the IoU of all sets but one with all sets (next) and with the left-out set (rest)."""
    pool = region(weight, sets[:-1])
    found = {"next": region(weight, sets), "rest": region(weight, sets[-1:])}
    return {against: float((pool & b).sum() / (pool | b).sum()) for against, b in found.items()}


def verdict(log_sd: float, alike: bool, nested: bool = False) -> tuple[dict[str, float], str]:
    """Return the IoUs of pools and the verdict on them, for sets with independent or with the same evidence."""
    generator = torch.Generator().manual_seed(7)
    weight = torch.randn(1, UNITS, generator=generator).abs()
    sets = [
        {WHERE: (log_sd * torch.randn(1, UNITS, generator=generator)).exp()}
        for _ in range(1 if alike else SETS)
    ]
    sets = sets * SETS if alike else sets
    found = ious(weight, sets)
    null = ious(weight, [shuffle_evidence(one, seed, "r") for seed, one in enumerate(sets)])
    rows = [
        {"order": 1, "k": SETS - 1, "against": against, "a": "a", "b": "b", "n_a": 100, "n_b": 100, "iou": iou,
         "shuffled": null[against], "nested": nested}
        for against, iou in found.items()
    ]  # fmt: skip
    _, overlaps, sizes = synthetic.gathered([CELL], 3)
    pools = {"/".join(CELL): pa.Table.from_pylist(rows, schema=POOLS.schema)}
    (said,) = measure(overlaps, sizes, sorted(synthetic.NAMES[:3]), pools)["verdict"]
    return found | {f"shuffled {against}": iou for against, iou in null.items()}, said


@pytest.mark.parametrize("log_sd", [0.3, 0.5, 1.0])
def test_independent_sets_are_not_said_to_converge(log_sd):
    found, said = verdict(log_sd, alike=False)
    assert found["next"] == pytest.approx(found["shuffled next"], abs=0.03), (
        "the null is what such pools give"
    )
    assert found["rest"] < 0.5 and "hardly changes" not in said
    assert ("change about as little" in said) == (found["next"] >= SETTLED) and (
        log_sd > 0.3 or found["next"] >= SETTLED
    )


@pytest.mark.parametrize("log_sd", [0.3, 0.5, 1.0])
def test_sets_with_the_same_evidence_are(log_sd):
    found, said = verdict(log_sd, alike=True)
    assert found["next"] == found["rest"] == 1 and "hardly changes" in said


def test_nested_regions_are_judged_by_the_left_out_set():
    _, said = verdict(0.5, alike=True, nested=True)
    assert "hardly changes" not in said and "Judge convergence by the left-out set" in said
