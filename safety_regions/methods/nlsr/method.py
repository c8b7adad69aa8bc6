"""NLSR: the magnitude of a LoRA adapter's weights along the main directions of its outputs on safe responses.

    score = | P W |,   P = V V^T,   V = top right singular vectors of Z = X W^T

for each factor W of an alignment adapter, A (r, in) and B (out, r), but not their product. X holds the factor's
inputs at the response tokens, in the backbone with the amplified adapter. Each backbone has one adapter, which is
the same for all datasets, so all datasets share the factors.

Source: Yi et al. 2024, arXiv 2412.12497 (xinykou/NLSR @aaee2b7). Paper and code disagree: the paper retains
r (1 - 0.8) directions, the code int(0.8 r) (preset ``nlsr_code``, which also projects the layers in sequence and
amplifies the factors instead of their product). Both select the top 20 % of each flattened factor. In the original,
W_0 of the amplification is the model before preference training and the amplified model writes the responses; here
W_0 is the backbone, which also writes the responses. `safety_regions.methods.nlsr.gram` explains how one small matrix
per layer replaces the singular value decompositions exactly.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from safety_regions.errors import StudyError, explain
from safety_regions.methods.nlsr.gram import (
    Grams,
    gather_grams,
    gather_sequentially,
    project_a,
    project_b,
    retained_rank,
)
from safety_regions.model.backbone import Backbone
from safety_regions.model.batches import Sample
from safety_regions.model.lora import Adapter, amplification, read_adapter
from safety_regions.scoring.evidence import rotation
from safety_regions.scoring.samples import Samples

CARD = {
    "title": "NLSR",
    "granularity": "lora_weight",
    "streams": True,
    "selections": ["matrix-0.2"],
    "kept": {"row": 0.2, "matrix": 0.2},
    "adapter": True,
    "rank_fraction": "retained",
    "options": {
        "retained": {
            "type": "number",
            "exclusiveMinimum": 0,
            "maximum": 1,
            "default": 0.2,
            "description": "number of directions retained, as a fraction (0-1] of the adapter's rank, rounded down",
        },
        "amplify": {
            "enum": ["product", "factors", "none"],
            "default": "product",
            "description": "scaling of the adapter: B A times (1 + beta), A and B times 2 beta each, or unscaled",
        },
        "beta": {
            "type": "number",
            "exclusiveMinimum": 0,
            "default": 0.9,
            "description": "strength of the amplification",
        },
        "sequential": {
            "type": "boolean",
            "default": False,
            "description": "project the adapters of all earlier blocks before each block; one forward pass per block",
        },
        "contrast": {
            "type": ["string", "null"],
            "default": None,
            "description": "utility dataset whose top directions are projected out (except from itself); null: none",
        },
    },
    "presets": {"nlsr_code": {"options": {"retained": 0.8, "amplify": "factors", "sequential": True}}},
}


class AdapterEvidence(NamedTuple):
    """The adapter, and M of each layer on the identification and on the contrast samples (empty without contrast)."""

    adapter: Adapter
    grams: Grams
    contrast: Grams


def gather(backbone: Backbone, samples: Samples, options: dict) -> AdapterEvidence:
    """Run the samples, and any contrast samples, through the model once (once per block if sequential).

    Raises:
        StudyError: there is no adapter, it does not fit the backbone, or the contrast samples are missing.
    """
    if samples.adapter is None:
        raise StudyError(
            explain("NLSR", "no adapter", "a LoRA adapter of the backbone", "the key `adapters`")
        )
    adapter = read_adapter(backbone, samples.adapter)
    factor = amplification(options["amplify"], options["beta"])

    def grams_of(chosen: Sequence[Sample]) -> Grams:
        given = samples._replace(identification=chosen)
        if options["sequential"]:
            return gather_sequentially(backbone, given, adapter, factor, options["retained"])
        return gather_grams(backbone, given, adapter, factor)

    if options["contrast"] is None or _all_of(options["contrast"], samples):
        return AdapterEvidence(adapter, grams_of(samples.identification), {})
    if not samples.contrast:
        raise StudyError(explain("NLSR: contrast", "no samples", f"samples of '{options['contrast']}'"))
    return AdapterEvidence(adapter, grams_of(samples.identification), grams_of(samples.contrast))


def _all_of(dataset: str, samples: Samples) -> bool:
    """Whether all samples come from the contrast dataset, for which projecting it out would leave nothing."""
    return all(sample.prompt_id.startswith(f"{dataset}/") for sample in samples.identification)


def scores(backbone: Backbone, evidence: AdapterEvidence, options: dict) -> Iterator[tuple[str, Tensor]]:
    """|P W|, float32: (r, in) at ``layers.3.q.A``, (out, r) at ``layers.3.q.B``."""
    for lora in evidence.adapter:
        k = retained_rank(len(lora.a), options["retained"])
        grams = evidence.grams[lora.address], evidence.contrast.get(lora.address)
        yield lora.address, project_a(lora.a, k, *grams).abs().float()
        for address, part in lora.parts():
            yield address, project_b(part, k, *grams).abs().float()


def findings(backbone: Backbone, evidence: AdapterEvidence, options: dict) -> dict:
    """How many linear layers the adapter covers, and how many the backbone has; the others have no scores."""
    return {"adapted_layers": len(evidence.adapter), "linear_layers": len(backbone.linears)}


def shuffle(evidence: AdapterEvidence, seed: int) -> AdapterEvidence:
    """Randomise the directions in the evidence and keep their strengths (permutation null).

    M = A C A^T mixes the data (C, the second moments of the inputs) with A, which a shuffle must not change, and
    M with permuted entries would no longer be a Gram matrix. With A = U S V^T, the data enter as K = V^T C V (r, r):
    K is rotated by a random orthogonal matrix, which preserves its spectrum, and M is computed from the result.
    Each layer has its own rotation, a function of the seed and the address.
    """

    def turned(address: str, a: Tensor, gram: Tensor) -> Tensor:
        u, s, _ = torch.linalg.svd(a.double(), full_matrices=False)
        outwards = u * s
        inwards = torch.linalg.pinv(outwards)
        turn = rotation(f"{seed}/{address}", len(a)).to(gram)
        return outwards @ turn @ inwards @ gram @ inwards.T @ turn.T @ outwards.T

    factors = {lora.address: lora.a for lora in evidence.adapter}
    grams, contrast = (
        {address: turned(address, factors[address], gram) for address, gram in found.items()}
        for found in (evidence.grams, evidence.contrast)
    )
    return AdapterEvidence(evidence.adapter, grams, contrast)


def merge(
    evidence: AdapterEvidence,
    more: AdapterEvidence,
    samples: tuple[Sequence[Sample], Sequence[Sample]],
    options: dict,
) -> AdapterEvidence:
    """Sums over the response tokens of both groups; the contrast samples are those of the first.

    With ``sequential``, the inputs of a block depend on the projections of all earlier blocks, and these on all
    prompts. The sum then has the inputs that each group saw by itself.
    """
    grams = {address: gram + more.grams[address] for address, gram in evidence.grams.items()}
    return evidence._replace(grams=grams)
