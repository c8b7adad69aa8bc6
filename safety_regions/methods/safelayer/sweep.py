"""Count how many harmless questions a backbone refuses while ranges of its layers are scaled.

Cost: for each range, an answer of ``max_new_tokens`` tokens (16) to every over-refusal question, in batches. Blocks
below the ranges read the questions only once (`prefix`).
The walk needs about ten ranges once alpha is known, plus five for each step of alpha; the grid needs
L * (L + 1) / 2. Memory: the backbone, and a copy of the weights of the range that is scaled.
"""

from collections.abc import Mapping
from itertools import islice

import pyarrow as pa

from safety_regions.formats.contracts import LAYER_SWEEP
from safety_regions.joblog import Progress
from safety_regions.methods.safelayer.onset import Span
from safety_regions.methods.safelayer.prefix import Prefix
from safety_regions.methods.safelayer.scaling import scale_target, scaled
from safety_regions.methods.safelayer.search import Found, Plan, localise
from safety_regions.model.backbone import Backbone
from safety_regions.model.generate import answer_prompts
from safety_regions.model.refusal import is_refusal
from safety_regions.scoring.method import Sweep


def sweep(
    backbone: Backbone, prompts: Mapping[str, str], found: dict, options: dict, batch_size: int
) -> Sweep:
    """Find the range of layers whose scaling changes over-refusal most.

    The backbone's weights are changed and then restored bit for bit.

    Args:
        backbone: a checkpoint in evaluation mode.
        prompts: id -> harmless question, without a chat template; the first ``options["questions"]`` are used.
        found: the result of `findings`; ``gap`` is the first and last layer of the gap, or None if no gap opens. In
            that case no range is found.
        options: all options of SafeLayer.
        batch_size: questions per forward pass; changes results only by rounding.
    """
    questions, initial = dict(islice(prompts.items(), options["questions"])), found["gap"]
    target = scale_target(backbone.family, options["scale_target"])

    prefix, progress = Prefix(backbone), Progress("sweep", None, "ranges of layers")

    def count(alpha: float, first: int, last: int) -> int:
        span = Span(first, last)
        with prefix.below(first), scaled(backbone, alpha, span, target, options["norms"]):
            refusals = _refusals(backbone, questions, options["max_new_tokens"], batch_size)
        print(f"alpha {alpha}, layers {first} to {last}: {refusals} of {len(questions)} refused")
        progress.step()
        return refusals

    made_with = {"scale_target": target, "questions": len(questions), "initial": initial}
    if initial is None:
        return Sweep(LAYER_SWEEP.schema.empty_table(), LAYER_SWEEP, {**made_with, "range": None})
    unscaled = _refusals(backbone, questions, options["max_new_tokens"], batch_size)
    best = localise(count, Span(*initial), len(backbone.blocks), plan_of(options, len(questions)))
    print(f"range {best.span.first} to {best.span.last} at alpha {best.alpha}, {unscaled} refused unscaled")
    if best.spread_reached is False:
        print(f"no alpha reached the required spread of counts: largest std {best.spread:.2f} questions")
    return Sweep(_table(unscaled, best), LAYER_SWEEP, {**made_with, **_summary(unscaled, best)})


def plan_of(options: dict, n_questions: int) -> Plan:
    """The settings of the search from the options, with the spread in questions instead of a fraction of them."""
    shared = {key: options[key] for key in Plan._fields if key != "spread"}
    absolute = options["spread_questions"]
    return Plan(**shared, spread=options["spread"] * n_questions if absolute is None else absolute)


def _refusals(backbone: Backbone, questions: Mapping[str, str], max_new_tokens: int, batch_size: int) -> int:
    answers = answer_prompts(
        backbone,
        list(questions.values()),
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        prompt_ids=list(questions),
    )
    return sum(is_refusal(answer.text) for answer in answers)


def _table(unscaled: int, found: Found) -> pa.Table:
    rows = [(1.0, "none", None, None, unscaled), *found.measured]
    columns = dict(zip(LAYER_SWEEP.schema.names, zip(*rows, strict=True), strict=True))
    return pa.table(columns, schema=LAYER_SWEEP.schema)


def _summary(unscaled: int, found: Found) -> dict:
    return {
        "range": found.span,
        "alpha": found.alpha,
        "refusals": found.refusals,
        "refusals_unscaled": unscaled,
        "spread": found.spread,
        "spread_reached": found.spread_reached,
    }
