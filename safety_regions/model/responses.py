"""Build the responses table: every prompt with its response and whether it refuses.

Responses are the backbone's own answers (origin ``backbone``), texts from the dataset (origin ``dataset``), or
one text for all prompts (origin ``fixed``), a control for what an overlap owes to the responses. Texts from the dataset
were written by another model or, in AdvBench, are compliant openings; the column ``refused`` is then False in every
row. Where a model thinks first, its answer after the thought is judged; ``refused`` is null if the thought was cut off.
"""

from collections.abc import Sequence

import pyarrow as pa

from safety_regions.errors import StudyError, explain, unknown
from safety_regions.formats.contracts import PROMPTS, RESPONSES
from safety_regions.formats.parquet import conform
from safety_regions.model.backbone import Backbone
from safety_regions.model.generate import Answer, answer_prompts
from safety_regions.model.prompt_format import PLACE
from safety_regions.model.refusal import answer_after_thought, is_refusal

ORIGINS = ("backbone", "dataset", "fixed")


def respond(
    backbone: Backbone,
    prompts: pa.Table,
    *,
    origin: str,
    max_new_tokens: int,
    batch_size: int,
    text: str | None = None,
) -> pa.Table:
    """Answer the prompts in their order, and judge whether the answers refuse.

    Args:
        backbone: a checkpoint in evaluation mode.
        prompts: rows of the prompts table (`contracts.PROMPTS`).
        origin: ``backbone`` for its own answers, ``dataset`` for the responses in the dataset, ``fixed`` for ``text``.
        max_new_tokens: maximum answer length in tokens (origin ``backbone``).
        batch_size: prompts per forward pass (origin ``backbone``).
        text: the response to every prompt (origin ``fixed``).

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
        answers = _given(backbone, origin, _own_responses(rows["prompt_id"], rows["response"]))
    elif origin == "fixed":
        answers = _given(backbone, origin, [text] * len(rows["prompt_id"]))
    else:
        raise StudyError(unknown("responses", "origin", origin, ORIGINS))
    frame = backbone.render(PLACE) if origin == "backbone" else ""
    columns = {name: rows[name] for name in ("prompt_id", "dataset", "split", "half")}
    columns |= {
        "prompt": rows["text"],
        "response": [answer.text for answer in answers],
        "origin": [origin] * len(answers),
        "refused": [_refused(answer.text, frame) for answer in answers],
        "n_tokens": [answer.n_tokens for answer in answers],
        "stop": [answer.stop for answer in answers],
    }
    return pa.Table.from_pydict(columns, schema=RESPONSES.schema)


def _refused(response: str, prompt: str) -> bool | None:
    answer = answer_after_thought(response, prompt)
    return None if answer is None else is_refusal(answer)


def _own_responses(ids: Sequence[str], responses: Sequence[str | None]) -> list[str]:
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
    return list(responses)


def _given(backbone: Backbone, origin: str, texts: Sequence[str]) -> list[Answer]:
    """Texts that the backbone did not write, as answers; each different text is tokenised once."""
    tokens = {text: len(backbone.response_ids(text)) for text in set(texts)}
    return [Answer(text, tokens[text], origin) for text in texts]
