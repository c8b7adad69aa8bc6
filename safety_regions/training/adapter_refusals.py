"""Check that the backbone still refuses with its trained adapter, on held-out harmful prompts.

If the learning rate of the preference step is too high, the likelihoods of both responses fall, and the model says
neither. The loss does not show this, because it only compares the two likelihoods.
"""

from collections.abc import Mapping, Sequence
from itertools import islice

import pyarrow as pa

from safety_regions.errors import StudyError, explain
from safety_regions.model.backbone import Backbone
from safety_regions.model.lora import Adapter, added, amplification
from safety_regions.training.refusals import refuses

MOST_PROMPTS = 64  # maximum number of prompts in total, an equal share of each dataset
ANSWER_TOKENS = 64  # maximum answer length; a refusal is recognised in the first 200 characters
REMEDY = "a smaller `preference: learning_rate` or fewer `preference: steps`"


def held_out_prompts(
    backbone: Backbone, responses: Mapping[str, pa.Table], harmful: Sequence[str], max_tokens: int
) -> list[str]:
    """Prompts of split ``evaluate`` that leave room for an answer, in the order of the datasets and their rows.

    Args:
        backbone: whose template, tokenizer and context are used.
        responses: dataset -> its responses (`contracts.RESPONSES`).
        harmful: datasets to take prompts from.
        max_tokens: maximum length of prompt and answer together, tokens.
    """
    longest = min(max_tokens, backbone.config.max_position_embeddings) - ANSWER_TOKENS
    share = max(1, MOST_PROMPTS // max(1, len(harmful)))
    found = []
    for dataset in harmful:
        rows = responses[dataset].select(["prompt", "split"]).to_pylist()
        texts = (row["prompt"] for row in rows if row["split"] == "evaluate")
        found += islice((text for text in texts if len(backbone.prompt_ids(text)) <= longest), share)
    return found


def measure_adapter(
    backbone: Backbone, adapter: Adapter, prompts: Sequence[str], batch_size: int, amplified: float | None
) -> list[dict]:
    """Rows of the training log: refusals without the adapter, with it as trained, and amplified.

    Args:
        backbone: the model that the adapter belongs to.
        adapter: as trained.
        prompts: answered once for each factor on the product B A.
        batch_size: prompts per pass.
        amplified: strength beta of the amplification (`lora.amplification`, form ``product``); None: not measured.
    """
    factors = [0.0, 1.0] + ([] if amplified is None else [amplification("product", amplified)])
    rows = []
    for factor in factors:
        with added(adapter, factor):
            refused = sum(refuses(backbone, prompts, ANSWER_TOKENS, batch_size))
        rows.append({"phase": "held-out", "n": len(prompts), "refused": refused, "factor": factor})
    return rows


def check_adapter(rows: Sequence[dict], required: float) -> None:
    """Print the refusal rates, and a warning if the rate with the amplified adapter is too low.

    Args:
        rows: from `measure_adapter`.
        required: minimum rate (0-1) of refusals; 0 accepts any.

    Raises:
        StudyError: the rate with the adapter as trained is lower than required.
    """
    alone, trained, *amplified = (row["refused"] / row["n"] for row in rows)
    times = [
        f", {rate:.1%} with it amplified by {row['factor']:g}"
        for rate, row in zip(amplified, rows[2:], strict=True)
    ]
    print(
        f"of {rows[0]['n']} held-out harmful prompts, refused: {alone:.1%} by the backbone, {trained:.1%} with the "
        f"adapter as trained{''.join(times)}"
    )
    if trained < required:
        found = f"{trained:.1%} of the held-out harmful prompts refused with the adapter, {alone:.1%} without"
        expected = f"at least {required:.1%} (`required_refusal`)"
        raise StudyError(explain("adapters: the adapter as trained", found, expected, REMEDY))
    if any(rate < required for rate in amplified):
        print(
            f"warning: with the amplified adapter (`check_amplified`) the backbone refuses {amplified[0]:.1%} of the "
            f"held-out harmful prompts, below `required_refusal` {required:.1%}; try {REMEDY}, or a method that does "
            "not amplify the adapter"
        )
