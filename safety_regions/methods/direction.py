"""Direction: how much a neuron adds to the difference of means of the residual stream, the "refusal direction".

    r = mean over harmful prompts of x - mean over ordinary prompts of x,    u = r / |r|

x is the residual stream at the last prompt token after a fraction of the decoder blocks (option ``depth``). A neuron
writes its activation a_k times a column w_k of `down` into the stream. Its score is one of (option ``statistic``):

    contribution (default)   |delta_k u.w_k|             delta_k = mean of a_k over harmful - over ordinary prompts
    energy                   sqrt(E[a_k^2]) |u.w_k|      E: mean over the harmful prompts
    static                   |u.w_k|
    cosine                   |u.w_k| / |w_k|

Neuron k is row k of up and column k of down; both get its score. A row of v is a neuron too: dimension j of a
key-value head writes through column j of `o` of each query head that shares it, and a_j are those inputs of o. Its
contribution is the absolute value of the sum over these heads. For the other statistics the sum is over absolute
values, and the cosine is the sum of |u.w| over the sum of |w|; this is ours, as the source scores no neurons. Every
layer is scored, also those after the depth of r.

*Conservation.* Contributions with their sign (column ``contribution`` of the score table) sum up to |r| over all
neurons, v and down, of the blocks before r, plus u times the difference of the mean embeddings: 0 if all prompts end in
the same token, as those of a chat template do. It holds where a block adds the outputs of `o` and `down` to the stream
as they are: not in Gemma 2, Gemma 3 and OLMo 2, where a norm follows them (contributions are measured before that norm,
and can only be compared within a layer), and up to the residual multiplier of Granite.

Source: Arditi et al. 2024, arXiv 2406.11717 (andyrdt/refusal_direction @9d852fa), section 2.3, for r; the scores of
neurons are ours. Differences in r: the code takes the stream that *enters* a block, at one of several template tokens.
It chooses token and layer by the effect of ablating r on refusals; here both are fixed, so that no refusal is counted
to find a region. Ordinary prompts are those of the option ``contrast``. Prompts are not filtered by refusal scores.

r comes from the scored prompts, so that of another set is another one. If ordinary and harmful prompts differ in topic,
r is topic.

Shuffled evidence (permutation null, or floor): delta and E[a^2] are permuted among the inputs of down and o of their
layer, and r among the dimensions of the stream. Weights stay, so the floor shows what the sizes of columns share.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from safety_regions.model.backbone import Backbone
from safety_regions.scoring.evidence import Evidence, shuffle_units
from safety_regions.scoring.moments import class_moments, feed_forward
from safety_regions.scoring.samples import Samples
from safety_regions.scoring.states import blocks_before, difference_of_means
from safety_regions.units.addresses import WRITERS, address, parse_address

CARD = {
    "title": "Direction",
    "granularity": "neuron",
    "projections": ["v", "up", "down"],
    "streams": True,
    "contrast": True,
    "selections": ["layer-0.01"],
    "options": {
        "contrast": {
            "type": ["string", "null"],
            "default": None,
            "description": "utility dataset with the ordinary prompts; null: the first one in the config",
        },
        "depth": {
            "type": "number",
            "exclusiveMinimum": 0,
            "maximum": 1,
            "default": 0.6,
            "description": "fraction of the decoder blocks after which the direction is taken, at least one block",
        },
        "statistic": {
            "enum": ["contribution", "energy", "static", "cosine"],
            "default": "contribution",
            "description": (
                "what a neuron adds to the difference; its size along the direction; its column of down along the "
                "direction, or the cosine of the two"
            ),
        },
    },
}

STREAM = "stream"
"""The key of r in the evidence."""


def gather(backbone: Backbone, samples: Samples, options: dict) -> Evidence:
    """delta and E[a^2] of the inputs of o and down, and r: all float64, on the CPU.

    Returns:
        Address of o or down -> (2, in), and `STREAM` -> (hidden,).

    Raises:
        StudyError: there are fewer than 2 ordinary prompts, or a value is not finite.
    """
    moments = class_moments(backbone, samples, projections=WRITERS)
    r = difference_of_means(
        backbone, samples.identification, samples.contrast, samples.batch_size, options["depth"]
    )
    inputs = {
        where: torch.stack(
            [values[0, 1] / values[0, 0] - values[1, 1] / values[1, 0], values[0, 2] / values[0, 0]]
        )
        for where, values in moments.items()
    }
    return {STREAM: r, **inputs}


def scores(backbone: Backbone, evidence: Evidence, options: dict) -> Iterator[tuple[str, Tensor]]:
    """The statistic: float32, (neurons,), of v, and the same for up and down of a layer."""
    weights = dict(backbone.weights())
    for layer in range(len(backbone.blocks)):
        of_heads, of_neurons = (
            _score(_written(backbone, evidence, where, weights[where]), options["statistic"]).float()
            for where in (address(layer, "o"), address(layer, "down"))
        )
        yield address(layer, "v"), of_heads
        yield from feed_forward(address(layer, "down"), of_neurons)


def details(backbone: Backbone, evidence: Evidence, options: dict, address: str) -> dict[str, Tensor]:
    """``contribution``: delta_k u.w_k of each neuron with its sign, float64, (neurons,)."""
    writer = writer_of(address)
    weight = dict(backbone.weights())[writer]
    return {"contribution": _written(backbone, evidence, writer, weight).contribution}


def writer_of(where: str) -> str:
    """The address of the projection through which the neurons at an address write: o for v, down for up and down."""
    layer, projection = parse_address(where)
    return address(layer, "o" if projection == "v" else "down")


class Written(NamedTuple):
    """What the neurons of an address write, (neurons, columns) each, float64, on the CPU.

    A neuron of down has one column, one of v a column of o for each query head of its group.

    Attributes:
        delta, size: difference of the mean inputs, and root mean square of the input over harmful prompts.
        along, norm: u.w and |w| of the columns.
    """

    delta: Tensor
    size: Tensor
    along: Tensor
    norm: Tensor

    @property
    def contribution(self) -> Tensor:
        return (self.delta * self.along).sum(1)


def _written(backbone: Backbone, evidence: Evidence, where: str, weight: Tensor) -> Written:
    """Of the neurons that write through the o or down at an address, whose weight is (hidden, in)."""
    r, (delta, squares) = evidence[STREAM], evidence[where]
    unit = r / r.norm() if r.any() else r
    along = unit.to(weight.device, torch.float32) @ weight.float()
    columns = (delta, squares.sqrt(), along, weight.float().norm(dim=0))
    of_heads = parse_address(where).projection == "o"
    width = backbone.head_dim if of_heads else len(delta)
    groups = backbone.rows_of("v") // width if of_heads else 1
    return Written(*(_by_neuron(values.double().cpu(), groups, width) for values in columns))


def _by_neuron(values: Tensor, groups: int, width: int) -> Tensor:
    """(in,) -> (neurons, columns): inputs lie by group, then by head of the group, then by dimension of the head."""
    return values.view(groups, -1, width).transpose(1, 2).reshape(groups * width, -1)


def _score(written: Written, statistic: str) -> Tensor:
    """The statistic of each neuron, float64, (neurons,). A column of zeros has cosine 0."""
    if statistic == "contribution":
        return written.contribution.abs()
    along = written.along.abs()
    if statistic == "energy":
        return (written.size * along).sum(1)
    if statistic == "static":
        return along.sum(1)
    norm = written.norm.sum(1)
    return torch.where(norm > 0, along.sum(1) / norm, 0)


def findings(backbone: Backbone, evidence: Evidence, options: dict) -> dict:
    """Metadata: the number of blocks before r, and |r|."""
    return {
        "blocks_before": blocks_before(options["depth"], len(backbone.blocks)),
        "norm": float(evidence[STREAM].norm()),
    }


def shuffle(evidence: Evidence, seed: int) -> Evidence:
    """Permute inputs within their address, and r among the dimensions of the stream. See `shuffle_units`."""
    return shuffle_units(evidence, seed)
