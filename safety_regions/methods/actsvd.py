"""ActSVD: the main directions of a projection's outputs W X over the response tokens.

    W X = U S V^T,   rank i: the direction U_i, scored by its singular value S_i

X holds the inputs of the projection at the response tokens, one column a token. A region is the span of the first
directions, of which Wei et al. remove those that ordinary prompts need: (I - P_u) P_s W. The refinement of a region is
the range of that matrix (`safety_regions.regions.subspaces`).

Source: Wei et al. 2024, arXiv 2402.05162, sections 2.1 and 2.2 (boyiwei/alignment-attribution-code @0b0e707,
lib/model_wrapper_low.py 188-220, main_low_rank_diff.py 176-261). Differences from the released code: the decomposition
is exact (the code's is randomised, and its projectors are bfloat16); the activations are not kept. By default all
layers are those of the unmodified model. The code goes through the model layer by layer, and later layers read what
earlier ones give after their ranks are removed: option ``sequential``, preset ``wei_code`` (the code's `top_remove`,
whose number of ranks is the same for all matrices). For a pair of sets the code removes (I - P_u) P_s W from the model
that both sets then read; here each set reads the model without its own ranks, and regions are subtracted afterwards.

The left singular space of W X depends on X through C = X X^T only, which one pass sums in float64. q, k and v read the
same inputs, and so do gate and up: one C (in, in) serves each group. Where o or down has more inputs than outputs, the
Gram matrix of the outputs W X is summed instead, without a bias. What is kept of it is K = P C P^T, the part of C that
W sees: with B = (W W^T)^(1/2) and orthonormal rows P, W = B P, and W C W^T = B K B.

There are at most as many directions as response tokens. Beyond them, and where a singular value is below rounding, the
score is 0 and the direction is a vector of zeros; no region may contain such a rank.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear as outputs
from torch.utils.hooks import RemovableHandle

from safety_regions.model.backbone import Backbone, ScoredLinear, attached
from safety_regions.model.batches import Batch, Sample
from safety_regions.scoring.evidence import Changed, Evidence, rotation
from safety_regions.scoring.passes import watch_inputs
from safety_regions.scoring.samples import Samples
from safety_regions.units.addresses import address, parse_address
from safety_regions.units.fractions import scope_count
from safety_regions.units.granularity import GRANULARITIES

CARD = {
    "title": "ActSVD",
    "granularity": "rank",
    "selections": ["matrix-0.05"],
    "options": {
        "sequential": {
            "type": ["number", "null"],
            "exclusiveMinimum": 0,
            "maximum": 1,
            "default": None,
            "description": (
                "read each layer after this fraction of the ranks of every matrix of the layers before it is removed; "
                "null: read all layers of the unmodified model"
            ),
        },
    },
    "presets": {"wei_code": {"options": {"sequential": 0.05}, "selections": ["matrix-0.05"]}},
}

HOMES = {"q": "q", "k": "q", "v": "q", "gate": "gate", "up": "gate"}
"""Projection -> the one whose inputs it shares, at which their Gram matrix is kept."""


def gather(backbone: Backbone, samples: Samples, options: dict) -> Evidence:
    """Gram matrices over the response tokens, float64, at q, o, gate and down of every layer.

    C (in, in) of the inputs; at o and down K (out, out), if they have more inputs than outputs. One forward pass, or
    with ``sequential`` one for every layer.
    """
    watch = partial(
        watch_inputs, backbone, samples, Grams, GRANULARITIES[CARD["granularity"]].bytes_per_parameter
    )
    if options["sequential"] is None:
        return watch()
    evidence: dict[str, Tensor] = {}
    with ExitStack() as removals:
        for layer in range(len(backbone.blocks)):
            evidence |= watch(only=layer)
            linears = [linear for linear in backbone.linears if linear.layer == layer]
            hooks = [_without_ranks(linear, evidence, options["sequential"]) for linear in linears]
            removals.enter_context(attached(hooks))
    return evidence


def _without_ranks(linear: ScoredLinear, evidence: Evidence, fraction: float) -> RemovableHandle:
    """Let a linear layer give the outputs of W - P W, where P is on the best ``fraction`` of each projection's ranks.

    The weights stay as they are.
    """
    weight, bias, bases = linear.module.weight, linear.module.bias, []
    for where, start, stop in linear.slices:
        own = weight[start:stop]
        n = scope_count(fraction, min(own.shape))
        bases.append(left_space(where, own, evidence).vectors[:, :n].float())

    def hook(_module, _args, output: Tensor) -> Tensor:
        found = (output if bias is None else output - bias).float()
        parts = found.split([stop - start for _, start, stop in linear.slices], dim=-1)
        removed = [part @ basis @ basis.T for part, basis in zip(parts, bases, strict=True)]
        return output - torch.cat(removed, dim=-1).to(output.dtype)

    return linear.module.register_forward_hook(hook)


class Grams:
    """Sums over the response tokens of x x^T, or of y y^T where y = W x is shorter."""

    def __init__(self, linears: Sequence[ScoredLinear]) -> None:
        found = {linear.slices[0].address: linear.module.weight for linear in linears}
        self.weights = {where: weight for where, weight in found.items() if home_of(where) == where}
        self.sums = {
            where: weight.new_zeros(
                [weight.shape[0 if _is_wide(where, weight) else 1]] * 2, dtype=torch.float64
            )
            for where, weight in self.weights.items()
        }

    def add(self, linear: ScoredLinear, x: Tensor, batch: Batch) -> None:
        where = linear.slices[0].address
        if where in self.sums:
            seen, weight = x[batch.response_mask].float(), self.weights[where]
            seen = (outputs(seen, weight.float()) if _is_wide(where, weight) else seen).double()
            self.sums[where] += seen.T @ seen

    def evidence(self, seen: int) -> Evidence:
        return {
            where: _inwards(weight, self.sums[where]) if _is_wide(where, weight) else self.sums[where]
            for where, weight in self.weights.items()
        }


def home_of(where: str) -> str:
    """The address whose evidence a projection reads."""
    layer, projection = parse_address(where)
    return address(layer, HOMES.get(projection, projection))


def _is_wide(where: str, weight: Tensor) -> bool:
    """Whether the evidence of a projection is that of its outputs, which are fewer than its inputs."""
    return parse_address(where).projection not in HOMES and weight.shape[0] < weight.shape[1]


def _inwards(weight: Tensor, gram: Tensor) -> Tensor:
    """K, from the Gram matrix B K B of the outputs."""
    inverse = _power_of_root(weight, -1)
    return inverse @ gram @ inverse


def _power_of_root(weight: Tensor, power: int) -> Tensor:
    """B = (W W^T)^(1/2), or its pseudoinverse (power -1): float64, (out, out)."""
    squares, vectors = torch.linalg.eigh(weight.double() @ weight.double().T)
    values = squares.clamp(min=0).sqrt()
    known = values > rounding(weight) * values[-1]
    return (vectors[:, known] * values[known] ** power) @ vectors[:, known].T


def rounding(weight: Tensor) -> float:
    """The share of the largest singular value of W X below which one is a rounding error of float32 inputs."""
    return max(weight.shape) * torch.finfo(torch.float32).eps


def scores(backbone: Backbone, evidence: Evidence, options: dict) -> Iterator[tuple[str, Tensor]]:
    """The singular values of W X, largest first: float32, (min(out, in),) per address."""
    for where, weight in backbone.weights():
        yield where, left_space(where, weight, evidence).values.float()


def details(backbone: Backbone, evidence: Evidence, options: dict, address: str) -> dict[str, Tensor]:
    """``direction``: the left singular vectors as rows, (min(out, in), out), float32."""
    return {"direction": left_space(address, dict(backbone.weights())[address], evidence).vectors.T.float()}


class Space(NamedTuple):
    """Singular values, largest first, and left singular vectors as columns: (r,) and (out, r), float64."""

    values: Tensor
    vectors: Tensor


def left_space(where: str, weight: Tensor, evidence: Evidence) -> Space:
    """The left singular space of W X, of r = min(out, in) dimensions; values and vectors are 0 below rounding.

    It is that of an r by r matrix: of W C W^T, of B K B, or, with W = Q R and orthonormal columns Q, of R C R^T.
    """
    gram, seen, outwards = evidence[home_of(where)].to(weight.device), weight.double(), None
    if _is_wide(where, weight):
        seen = _power_of_root(weight, 1)
    elif weight.shape[0] > weight.shape[1]:
        outwards, seen = torch.linalg.qr(seen)
    squares, vectors = torch.linalg.eigh(seen @ gram @ seen.T)
    values, vectors = squares.clamp(min=0).sqrt().flip(0), vectors.flip(1)
    known = values > rounding(weight) * values[0]
    return Space(values * known, (vectors if outwards is None else outwards @ vectors) * known)


def merge(
    evidence: Evidence, more: Evidence, samples: tuple[Sequence[Sample], Sequence[Sample]], options: dict
) -> Evidence:
    """Sums over the response tokens of both groups.

    With ``sequential`` each group has read the model without its own ranks, so these are not the sums that a pass over
    both would give. Pools of shuffled sets, which alone are merged, then have this meaning.
    """
    return Changed(evidence, lambda where, gram: gram + more[where])


def shuffle(evidence: Evidence, seed: int) -> Evidence:
    """Rotate the inputs, Q C Q^T or Q K Q^T, with a random orthogonal Q at each address (permutation null).

    The strengths of the inputs' directions stay, and so does W; where they point is random. Q is a function of the seed
    and the address alone.
    """

    def turned(where: str, gram: Tensor) -> Tensor:
        turn = rotation(f"{seed}/{where}", len(gram)).to(gram)
        return turn @ gram @ turn.T

    return Changed(evidence, turned)
