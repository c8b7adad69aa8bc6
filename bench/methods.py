"""What does every method cost on a chat model of 135M parameters, beside the passes that it needs?"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from bench.chat import FULL, TOY, Case, Sizes, backward, default_options, forward
from bench.measure import Figure, alternate, require
from bench.models import llama, samples
from safety_regions.methods import load_method
from safety_regions.model.backbone import Backbone
from safety_regions.model.batches import Sample
from safety_regions.scoring.samples import Samples
from safety_regions.study.method_shelf import method_cards

__all__ = ["FULL", "TOY", "run"]

GRADIENTS = ("snip", "signed_snip", "gradient")
"""Methods that need a backward pass; all others need forward passes, or none."""

LEFT_OUT = ("nlsr", "ships", "random")
"""NLSR scores a trained adapter, SHIPS repeats passes for every head (see below), and random scores need no model."""


def run(sizes: Sizes = FULL) -> Iterator[Figure]:
    """Yield the time of every method's passes relative to plain ones, and the time that its scores take after them."""
    vocabulary = sizes.model["vocab_size"]
    backbone = replace(llama(sizes.model), base=llama(sizes.model, seed=1))
    own, ordinary = (samples(sizes.samples, sizes.tokens, vocabulary, seed) for seed in (0, 1))
    passes = [lambda: forward((backbone, own)), lambda: forward((backbone, own + ordinary))]
    plain, both, back = alternate([*passes, lambda: backward((backbone, own))], sizes.repeats)
    what = f"{sizes.samples} samples of about {sizes.tokens} tokens: {{}}"
    yield Figure(what.format("plain forward"), plain, "s")
    yield Figure(what.format("plain backward"), back, "s")
    for name, card in sorted(method_cards().items()):
        if name in LEFT_OUT:
            continue
        gather, score = steps(name, backbone, own, ordinary)
        if not card["data_free"]:
            needs, seconds = "a plain forward pass", plain
            if name in GRADIENTS:
                needs, seconds = "a plain backward pass", back
            elif card["contrast"]:
                needs, seconds = "plain forward passes over both sets", both
            elif card["base"] is True:  # not where only an option needs it
                needs, seconds = "plain forward passes of both models", 2 * plain
            (took,) = alternate([gather], sizes.repeats)
            yield Figure(what.format(f"{name} / {needs}"), took / seconds, "x")
        (took,) = alternate([score], 1)
        yield Figure(what.format(f"{name}: scores of all units, from what the passes gathered"), took, "s")
    yield pruned_heads((backbone, own[:1]), sizes)


def steps(
    name: str, backbone: Backbone, own: Sequence[Sample], ordinary: Sequence[Sample]
) -> tuple[Callable[[], object], Callable[[], None]]:
    """Return two calls: one gathers the evidence of a method, with its default options, and the other scores it."""
    method = load_method(name)
    options = default_options(name)

    def gather() -> object:
        return method.gather(backbone, Samples(own, ordinary), options)

    evidence = gather()
    found = [bool(values.isfinite().all()) for _, values in method.scores(backbone, evidence, options)]
    require(bool(found) and all(found), f"{name} gives no scores, or scores that are not finite")

    def score() -> None:
        for _ in method.scores(backbone, evidence, options):
            pass

    return gather, score


def pruned_heads(case: Case, sizes: Sizes) -> Figure:
    """Return the time of SHIPS, which runs the model once for every head, relative to one plain forward pass."""
    gather, _ = steps("ships", *case, case[1])
    n_heads = sizes.model["num_hidden_layers"] * sizes.model["num_attention_heads"]
    once, ships = alternate([lambda: forward(case), gather], 1)
    floor = "half of the layers for each head, and the prompt is half of the tokens"
    return Figure(
        f"one sample: ships of {n_heads} heads / a plain forward pass", ships / once, "x", n_heads / 4, floor
    )
