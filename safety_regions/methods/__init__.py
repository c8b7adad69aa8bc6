"""The shelf of methods: one file per method.

A method module holds its formula in the docstring and these names:

``CARD``
    a literal dict: title, granularity (weight, neuron, layer), default ``selections``, ``options`` (a JSON
    schema with a default for each), and ``presets``. It is read from the syntax tree, so that listing the
    shelf imports no method and no torch.
``gather(backbone, samples, options) -> evidence``
    one pass over the samples; a tensor per address.
``scores(backbone, evidence, options) -> iterator of (address, scores)``
    evidence combined with the weights, float32, larger means more important.
``findings(backbone, evidence, options) -> dict``
    (optional) what else was found, in words of JSON; it stands in the stamp of the score file under ``found``.
``details(backbone, evidence, options, address) -> dict``
    (optional) further columns of the score table: of neurons (units, prompts) each, of layers (layers,).
``shuffle(evidence, seed) -> evidence``
    (optional) in the place of `safety_regions.scoring.evidence.shuffle_evidence`.
"""
