"""Neurons that are active whatever the prompt is: the universal neurons of CNA's paper (section 3.2).

A neuron is active for a prompt if |h_k| at its last token is among the largest 0.1 % of all layers together. The paper
excludes neurons that are active for at least 80 % of diverse prompts, which it does not list. Here the prompts are the
ordinary ones that a set is contrasted with, so the same neurons are excluded for every set.

The released code instead finds them within each layer (the top 20 for 10 prompts), and uses them in another mode only.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from safety_regions.model.backbone import Backbone, ScoredLinear
from safety_regions.model.batches import Batch
from safety_regions.scoring.evidence import Evidence
from safety_regions.scoring.moments import NEURONS, of_prompts, vectors, watched
from safety_regions.scoring.passes import watch_inputs
from safety_regions.scoring.samples import Samples
from safety_regions.units.fractions import scope_count

ACTIVE = 0.001
"""Fraction of all neurons that are active for a prompt; at least one neuron is."""


def shares_of_prompts(backbone: Backbone, samples: Samples) -> Evidence:
    """The fraction of the ordinary prompts for which each neuron is active: address of down -> (neurons,), float64.

    One more forward pass of the ordinary prompts. One number per prompt and neuron is in memory: 180 MB for 100 prompts
    and an 8B Llama.
    """
    sizes = watch_inputs(backbone, of_prompts(samples, samples.contrast), Activations)
    activations = torch.cat(list(sizes.values()), dim=1)
    n_active = max(1, scope_count(ACTIVE, activations.shape[1]))
    least = activations.topk(n_active, dim=1, sorted=False).values.amin(1, keepdim=True)
    shares = (activations >= least).double().mean(0)
    parts = shares.split([values.shape[1] for values in sizes.values()])
    return dict(zip(sizes, parts, strict=True))


class Activations:
    """|h_k| at the last token of each prompt, for the neurons of every layer: (prompts, neurons), float32."""

    def __init__(self, linears: Sequence[ScoredLinear]) -> None:
        self.found: dict[str, list[Tensor]] = {where: [] for _, where in watched(linears, NEURONS)}

    def add(self, linear: ScoredLinear, x: Tensor, batch: Batch) -> None:
        found = self.found.get(linear.slices[0].address)
        if found is not None:
            found.append(vectors(x, batch, "last").abs().float().cpu())

    def evidence(self, seen: int) -> Evidence:
        return {where: torch.cat(values) for where, values in self.found.items()}
