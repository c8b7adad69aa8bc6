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
    drop_long: bool = False,
) -> pa.Table:
    """Answer the prompts in their order, and judge whether the answers refuse.

    Args:
        backbone: a checkpoint in evaluation mode.
        prompts: rows of the prompts table (`contracts.PROMPTS`).
        origin: ``backbone`` for its own answers, ``dataset`` for the responses in the dataset, ``fixed`` for ``text``.
        max_new_tokens: maximum answer length in tokens (origin ``backbone``).
        batch_size: prompts per forward pass (origin ``backbone``).
        text: the response to every prompt (origin ``fixed``).
        drop_long: leave out prompts that do not fit the context together with their response, and print their ids.

    Returns:
        A table with the columns of `contracts.RESPONSES`.

    Raises:
        StudyError: unknown origin; prompts too long for the context (origin ``backbone``), with their ids; prompts
            without a response (origin ``dataset``), with an example id.
    """
    table = conform(prompts, PROMPTS)
    given = _given(table, origin, text)
    if origin == "backbone" or drop_long:
        fitting = _fitting(backbone, table, given, max_new_tokens, drop_long)
        table, given = table.take(pa.array(fitting, pa.int64())), [given[index] for index in fitting]
    rows = table.to_pydict()
    if origin == "backbone":
        answers = answer_prompts(backbone, rows["text"], max_new_tokens=max_new_tokens, batch_size=batch_size)
    else:
        answers = _as_answers(backbone, origin, given)
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


def _given(prompts: pa.Table, origin: str, text: str | None) -> list[str | None]:
    """The response to each prompt that the backbone does not write itself; None where it does."""
    if origin == "dataset":
        return _own_responses(prompts["prompt_id"].to_pylist(), prompts["response"].to_pylist())
    if origin not in ORIGINS:
        raise StudyError(unknown("responses", "origin", origin, ORIGINS))
    return [text if origin == "fixed" else None] * prompts.num_rows


def _fitting(
    backbone: Backbone, prompts: pa.Table, given: Sequence[str | None], max_new_tokens: int, drop_long: bool
) -> list[int]:
    """Indices of the prompts that fit the context together with their response."""
    limit = backbone.config.max_position_embeddings
    lengths = [
        len(backbone.prompt_ids(prompt)) + max_new_tokens
        if response is None
        else len(backbone.encode(prompt, response).ids)
        for prompt, response in zip(prompts["text"].to_pylist(), given, strict=True)
    ]
    ids = prompts["prompt_id"].to_pylist()
    long = [f"{name} ({n})" for name, n in zip(ids, lengths, strict=True) if n > limit]
    if long and not drop_long:
        shown = ", ".join(long[:10]) + (", ..." if len(long) > 10 else "")
        raise StudyError(
            explain(
                "responses",
                f"{len(long)} prompts that do not fit the context (tokens, with {max_new_tokens} for the answer): "
                f"{shown}",
                f"at most {limit} tokens",
                "`samples: {drop_long: true}`, a filter in the dataset's card, or a smaller max_new_tokens",
            )
        )
    if long:
        print(
            f"left out {len(long)} prompts that do not fit the context of {limit} tokens: {', '.join(long)}"
        )
    return [index for index, n in enumerate(lengths) if n <= limit]


def _as_answers(backbone: Backbone, origin: str, texts: Sequence[str]) -> list[Answer]:
    """Texts that the backbone did not write, as answers; each different text is tokenised once."""
    tokens = {text: len(backbone.response_ids(text)) for text in set(texts)}
    return [Answer(text, tokens[text], origin) for text in texts]
