"""Signed SNIP: which weights make the response more likely, to first order.

    score_ij = -W_ij * mean over samples of d loss / d W_ij,   loss = -log p(response | prompt)

Deleting a weight (W -> 0) changes the loss by about minus W times its gradient, which is the score. A large positive
score therefore belongs to a weight whose deletion makes the response less likely: it carries the response. A negative
one belongs to a weight that stands against the response. By default only weights with a positive score enter a region
(option ``positive``), which may then be smaller than its fraction. Gradients are averaged over samples with their
signs, while SNIP adds absolute values: what two samples need in opposite directions cancels. The responses therefore
say what is asked (option ``responses``, which the config's ``responses`` must agree with): of refusals, the weights
that carry refusals; of harmful answers, those that carry harmful answers. The latter are taken from the user's own
files and never generated here.

Dual calibration of the source: from the top fraction q of this score, remove the top fraction p of another score on
ordinary prompts. The config's ``minus`` of this method names that other method and selection.

Euler's identity: up and down multiply each other, so the scores of row k of up and those of column k of down have the
same sum (where up has no bias), and so do the scores of v and o in a layer (where v has none).

Source: arXiv 2604.09544 ("B-TAP"), known here from the README and the code (orgadhadas/safety, prune_utils.py), not
from the full text. That code repeats the passes for each layer and sums in the weights' dtype, which loses small terms
of a signed sum. Here one pass serves all layers, and sums are float32. The code ranks flattened matrices, with q = 1e-5
and p = 5e-5 (preset ``orgad_code``). Of its score on ordinary prompts there are two readings: the flags of its README
give SNIP's |W| times the mean of |gradient|; a third-party replica takes |W times the mean gradient| (option
``absolute``), and ranks the whole model (preset ``orgad_global``).
"""

from collections.abc import Iterator

from torch import Tensor

from safety_regions.model.backbone import Backbone
from safety_regions.scoring.evidence import Evidence
from safety_regions.scoring.gradients import mean_gradients
from safety_regions.scoring.samples import Samples

CARD = {
    "title": "Signed SNIP",
    "granularity": "weight",
    "per_weight": True,
    "asks_for": "responses",
    "selections": ["row-0.05"],
    "kept": {"global": 0.00002},
    "options": {
        "responses": {
            "enum": ["refused", "complied"],
            "default": "refused",
            "description": "responses to harmful prompts whose weights are asked for: refusals, or harmful answers",
        },
        "loss": {
            "enum": ["mean", "sum"],
            "default": "mean",
            "description": "reduction of a sample's loss over its response tokens",
        },
        "positive": {
            "type": "boolean",
            "default": True,
            "description": "only weights with a positive score enter a region",
        },
        "absolute": {
            "type": "boolean",
            "default": False,
            "description": "the size of the score, without its sign: for a utility region to be subtracted",
        },
    },
    "presets": {
        "orgad_code": {"selections": ["matrix-0.00001"]},
        "orgad_global": {"selections": ["global-0.000005"]},
    },
}


def gather(backbone: Backbone, samples: Samples, options: dict) -> Evidence:
    """Mean over samples of the signed gradient: address -> (out, in)."""
    return mean_gradients(backbone, samples, options["loss"])


def scores(backbone: Backbone, evidence: Evidence, options: dict) -> Iterator[tuple[str, Tensor]]:
    """Minus W times the evidence, or the size of this, float32, (out, in) per address."""
    for address, weight in backbone.weights():
        found = weight.float() * evidence[address].to(weight.device)
        yield address, found.abs_() if options["absolute"] else found.neg_()
