"""Gradient: the size of the mean gradient, without the weight itself.

    score_ij = |mean over samples of d loss / d W_ij|,   loss = -log p(response | prompt)

With ``scale: sigma`` the score is multiplied by the standard deviation of the weights of its projection (n - 1 in the
denominator; fused matrices are split first). This number is the same for all weights of a matrix, so it changes only
what is ranked together with other matrices: scopes layer and global.

SNIP, Wanda and NLSR multiply their statistics by the weights, which all sets share. Here no |W| is left, so the sets
share nothing but the model's gradients: beside SNIP, it shows how much of an overlap is shared magnitude. Gradients of
samples are added with their signs and can cancel; SNIP adds their absolute values.

Source of the form: the expected safety impact |sigma(theta_i) dS/dtheta_i| of arXiv 2604.08297, where S is the score
that a differentiable guard model gives to the model's own answers. This is a proxy of it: S is the log-likelihood of
the response, so no guard, no second vocabulary and no sampling take part. Their code also sums signed gradients over
prompts and takes the absolute value last, but in bfloat16. Its candidates include an untied output head.
"""

from collections.abc import Iterator

from torch import Tensor

from safety_regions.model.backbone import Backbone
from safety_regions.scoring.evidence import Evidence
from safety_regions.scoring.gradients import mean_gradients
from safety_regions.scoring.samples import Samples

CARD = {
    "title": "Gradient",
    "granularity": "weight",
    "per_weight": True,
    "selections": ["row-0.05"],
    "options": {
        "loss": {
            "enum": ["mean", "sum"],
            "default": "mean",
            "description": "reduction of a sample's loss over its response tokens",
        },
        "scale": {
            "enum": ["none", "sigma"],
            "default": "none",
            "description": "sigma: times the standard deviation of the projection's weights",
        },
    },
    "presets": {},
}


def gather(backbone: Backbone, samples: Samples, options: dict) -> Evidence:
    """Mean over samples of the signed gradient: address -> (out, in)."""
    return mean_gradients(backbone, samples, options["loss"])


def scores(backbone: Backbone, evidence: Evidence, options: dict) -> Iterator[tuple[str, Tensor]]:
    """The size of the evidence, or its product with the spread of the weights, float32, (out, in) per address."""
    for address, weight in backbone.weights():
        found = evidence[address].to(weight.device).abs()
        yield address, found * weight.float().std() if options["scale"] == "sigma" else found
