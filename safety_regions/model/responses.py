"""Build the responses table: every prompt with its response and whether it refuses.

Responses are the backbone's own greedy answers (origin ``backbone``) or texts from the dataset (origin ``dataset``).
The latter were written by another model or, in AdvBench, are compliant openings; the column ``refused`` is then False
in every row.
"""

from collections.abc import Sequence

import pyarrow as pa

from safety_regions.errors import StudyError, explain, unknown
from safety_regions.formats.contracts import PROMPTS, RESPONSES
from safety_regions.formats.parquet import conform
from safety_regions.model.backbone import Backbone
from safety_regions.model.generate import Answer, answer_prompts
from safety_regions.model.refusal import is_refusal

ORIGINS = ("backbone", "dataset")


def respond(
    backbone: Backbone, prompts: pa.Table, *, origin: str, max_new_tokens: int, batch_size: int
) -> pa.Table:
    """Answer the prompts in their order, and judge whether the answers refuse.

    Args:
        backbone: a checkpoint in evaluation mode.
        prompts: rows of the prompts table (`contracts.PROMPTS`).
        origin: ``backbone`` for greedy answers, ``dataset`` for the responses in the dataset.
        max_new_tokens: maximum answer length in tokens (origin ``backbone``).
        batch_size: prompts per forward pass (origin ``backbone``).

    Returns:
        A table with the columns of `contracts.RESPONSES`.

    Raises:
        StudyError: unknown origin; a prompt too long for the context; prompts without a response (origin
            ``dataset``), with an example id.
    """
    rows = conform(prompts, PROMPTS).to_pydict()
    if origin == "backbone":
        answers = answer_prompts(backbone, rows["text"], max_new_tokens=max_new_tokens, batch_size=batch_size)
    elif origin == "dataset":
        answers = _own_responses(backbone, rows["prompt_id"], rows["response"])
    else:
        raise StudyError(unknown("responses", "origin", origin, ORIGINS))
    columns = {name: rows[name] for name in ("prompt_id", "dataset", "split", "half")}
    columns |= {
        "prompt": rows["text"],
        "response": [answer.text for answer in answers],
        "origin": [origin] * len(answers),
        "refused": [is_refusal(answer.text) for answer in answers],
        "n_tokens": [answer.n_tokens for answer in answers],
        "stop": [answer.stop for answer in answers],
    }
    return pa.Table.from_pydict(columns, schema=RESPONSES.schema)


def _own_responses(backbone: Backbone, ids: Sequence[str], responses: Sequence[str | None]) -> list[Answer]:
    missing = [name for name, response in zip(ids, responses, strict=True) if not response]
    if missing:
        raise StudyError(
            explain(
                "responses",
                f"no response in the dataset for {len(missing)} of {len(ids)} prompts, e.g. {missing[0]}",
                "a response in every row for `origin: dataset`",
                "`origin: backbone`, or a dataset whose card names a response column",
            )
        )
    tokenize = backbone.tokenizer
    lengths = (len(tokenize(text, add_special_tokens=False)["input_ids"]) for text in responses)
    return [Answer(text, length, "dataset") for text, length in zip(responses, lengths, strict=True)]
