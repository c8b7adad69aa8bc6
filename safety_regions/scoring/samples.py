"""Select the answered prompts that a score is computed on, and tokenise them.

The selection is deterministic: the responses table is in the hashed order fixed when the prompts were read, so
"the first n" is a random sample that does not depend on other datasets.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from safety_regions.errors import StudyError, explain
from safety_regions.formats.contracts import RESPONSES, SHARED_PROMPTS, USABLE
from safety_regions.formats.files import by_stem
from safety_regions.formats.parquet import read_table, read_tables
from safety_regions.model.backbone import Backbone
from safety_regions.model.batches import Sample
from safety_regions.prompts.sharing import prompts_to_drop
from safety_regions.units.names import Name, Part

# The config's word -> the values of the column `refused` that are used; None: cut off inside a thought.
WANTED = {"refused": (True,), "complied": (False,), "all": (True, False, None)}


class Samples(NamedTuple):
    """The inputs of a method: tokenised samples, and limits on batch size and memory.

    Attributes:
        identification: the samples of the name that is scored.
        contrast: ordinary samples, for a method whose CARD asks for a ``contrast`` dataset.
        adapter: directory of the backbone's LoRA adapter, for a method whose CARD asks for an ``adapter``.
        batch_size: maximum number of samples per batch; changes results only by rounding.
        memory: maximum host memory of the job, bytes; None: all free memory.
        scratch: folder for evidence that does not fit in memory; None: the default temporary directory.
    """

    identification: Sequence[Sample]
    contrast: Sequence[Sample] = ()
    adapter: Path | None = None
    batch_size: int = 8
    memory: int | None = None
    scratch: Path | None = None


class Chosen(NamedTuple):
    """The rows of the responses tables that a name selects, and for each reason how many rows were left out.

    ``counts``: how many of the rows belong to each part of the name, in its order.
    """

    rows: list[dict]
    skipped: dict[str, int]
    counts: tuple[int, ...] = ()


def choose(
    name: Name,
    responses: Mapping[str, pa.Table],
    n: int,
    keep: dict[str, str],
    shared: pa.Table | None = None,
) -> Chosen:
    """The first ``n`` usable identification prompts of each part of ``name``; a half takes the first n // 2.

    A block ``a@25x2`` takes the second 25 of them, whatever n is. Of ``a^b``, the i-th prompt of a gets the i-th
    response of b; there are as many as both have.

    Args:
        name: the parsed name; pooled parts are concatenated in its order.
        responses: dataset -> its responses table.
        n: prompts per whole dataset; fewer are used if fewer are available, and the metadata records how many.
        keep: dataset -> "refused", "complied" or "all".
        shared: the shared-prompts table, to leave out prompts that a dataset earlier in the alphabet also has.

    Raises:
        StudyError: a part has no usable prompt.
    """
    taken, skipped, counts = [], {}, []
    drop = prompts_to_drop(shared) if shared is not None else {}

    def usable(part: Part) -> list[dict]:
        found, left_out = _usable(str(name), part, responses[part.dataset], n, keep, drop)
        skipped.update(left_out)
        return found

    for part in name.parts:
        chosen = usable(part._replace(responses=None))
        if part.responses:
            given = usable(part._replace(dataset=part.responses, responses=None))
            chosen = [
                row | {"response": other["response"]} for row, other in zip(chosen, given, strict=False)
            ]
        taken += chosen
        counts.append(len(chosen))
    return Chosen(taken, skipped, tuple(counts))


def _unusable(answered: Sequence[dict], kept: str, dropped: Collection[str]) -> dict[str, set[str]]:
    """Reason -> ids of the answered prompts that are not used for it."""
    return {
        f"not {kept}": {r["prompt_id"] for r in answered if r["refused"] not in WANTED[kept]},
        "shared": {r["prompt_id"] for r in answered if r["prompt_id"] in dropped},
        "empty": {r["prompt_id"] for r in answered if r["n_tokens"] == 0},
    }


def _usable(
    name: str, part: Part, table: pa.Table, n: int, keep: dict[str, str], drop: Mapping[str, Collection[str]]
) -> tuple[list[dict], dict[str, int]]:
    """The usable rows of one part, and how many rows were left out, by dataset and reason."""
    kept, dropped = keep[part.dataset], drop.get(part.dataset, ())
    answered = [
        row for row in table.to_pylist() if row["split"] == "identify" and part.half in (None, row["half"])
    ]
    unusable = _unusable(answered, kept, dropped)
    left_out = set().union(*unusable.values())
    size = part.size or (n // 2 if part.half else n)
    usable = [row for row in answered if row["prompt_id"] not in left_out]
    chosen = usable[(part.block - 1) * size : part.block * size]
    if not chosen:
        counts = ", ".join(f"{len(ids)} {reason}" for reason, ids in unusable.items())
        raise StudyError(
            explain(
                f"scores of '{name}'",
                f"no usable prompt of '{part}' ({len(answered)} answered, {counts})",
                "at least one",
                "`responses: {keep_identification: all}` (`keep_utility` of a utility set), more candidates",
            )
        )
    if len(chosen) < size:
        print(f"'{part}': {len(chosen)} usable prompts, fewer than the {size} asked for")
    return chosen, {f"{part.dataset}: {reason}": len(ids) for reason, ids in unusable.items() if ids}


def choose_from(
    paths: Sequence[str | Path],
    name: Name,
    n: int,
    keep: dict[str, str],
    shared: Sequence[str | Path] = (),
    usable: Sequence[str | Path] = (),
) -> Chosen:
    """`choose` from files.

    Args:
        paths: responses tables named after their datasets.
        shared: tables of shared prompts, which are left out.
        usable: tables of usable prompts (`count_usable`); n is cut to the smallest number in them.
    """
    responses = dict(read_tables(by_stem(paths), RESPONSES))
    counted = [n for path in usable for n in read_table(path, USABLE)["n_usable"].to_pylist()]
    return choose(name, responses, min([n, *counted]), keep, _joined(shared))


def count_usable(
    paths: Sequence[str | Path], keep: dict[str, str], shared: Sequence[str | Path] = ()
) -> pa.Table:
    """The number of usable identification prompts of each dataset: a `contracts.USABLE` table.

    Args:
        paths, keep, shared: as in `choose_from`.

    Raises:
        StudyError: a dataset has none, so that no number is the same for all.
    """
    drop, rows = prompts_to_drop(_joined(shared)), []
    for dataset, table in read_tables(by_stem(paths), RESPONSES):
        answered = [row for row in table.to_pylist() if row["split"] == "identify"]
        left_out = set().union(*_unusable(answered, keep[dataset], drop.get(dataset, ())).values())
        rows.append({"dataset": dataset, "n_usable": len(answered) - len(left_out)})
    empty = [row["dataset"] for row in rows if not row["n_usable"]]
    if empty:
        found, hint = (
            f"no usable prompt of {', '.join(empty)}",
            "another set, or without `equal` or `drop_shared`",
        )
        raise StudyError(explain("samples: equal", found, "at least one of every identification set", hint))
    return pa.Table.from_pylist(rows, schema=USABLE.schema)


def _joined(shared: Sequence[str | Path]) -> pa.Table:
    tables = [read_table(path, SHARED_PROMPTS) for path in shared]
    return pa.concat_tables([SHARED_PROMPTS.schema.empty_table(), *tables])


def encode_samples(backbone: Backbone, rows: Sequence[dict]) -> list[Sample]:
    """Tokenise the chosen rows.

    Raises:
        StudyError: a sample has no response token or does not fit the context; the message names the ids.
    """
    limit = backbone.config.max_position_embeddings
    samples, bad = [], []
    for row in rows:
        ids, prompt_length = backbone.encode(row["prompt"], row["response"])
        if not prompt_length < len(ids) <= limit:
            bad.append(f"{row['prompt_id']} ({prompt_length}+{len(ids) - prompt_length})")
        samples.append(Sample(row["prompt_id"], ids, prompt_length))
    if bad:
        raise StudyError(
            explain(
                "scoring",
                f"prompts whose tokens (prompt+response) do not fit: {', '.join(bad[:5])}",
                f"at least one response token and at most {limit} tokens in total",
                "a filter in the dataset's card, or a smaller `max_new_tokens`",
            )
        )
    return samples
