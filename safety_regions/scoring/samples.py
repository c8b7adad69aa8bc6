"""Which answered prompts a score is computed on, and how they become batches of tokens.

Choosing is by rule, not by chance: the responses table is in the hashed order fixed when the prompts were
read, so "the first n" is a random sample that another dataset never changes.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import torch
from torch import Tensor

from safety_regions.backbone import Backbone
from safety_regions.errors import StudyError, explain
from safety_regions.names import Name
from safety_regions.prompts.sharing import prompts_to_drop

# What of "was it refused?" counts, by the config's word.
WANTED = {"refused": (True,), "complied": (False,), "all": (True, False)}


class Sample(NamedTuple):
    """One prompt with its response: token ids, of which the first ``prompt_length`` are the prompt's."""

    prompt_id: str
    ids: list[int]
    prompt_length: int


class Batch(NamedTuple):
    """Right-padded samples, all tensors of shape (batch, tokens).

    ``attention_mask`` is 1 on real tokens. ``response_mask`` is True where the input token belongs to the
    response (from its first token to its last). ``target_mask`` is True where the *next* token belongs to the
    response: the positions whose prediction the loss counts.
    """

    prompt_ids: tuple[str, ...]
    input_ids: Tensor
    attention_mask: Tensor
    response_mask: Tensor
    target_mask: Tensor

    def to(self, device: torch.device) -> "Batch":
        return Batch(self.prompt_ids, *(tensor.to(device) for tensor in self[1:]))


class Samples(NamedTuple):
    """What a method sees of the data: tokenised samples, and how many go through the model at once.

    Attributes:
        identification: the samples of the name that is scored.
        contrast: ordinary samples, for a method whose CARD asks for a ``contrast`` dataset.
        adapter: directory of the backbone's LoRA adapter, for a method whose CARD asks for an ``adapter``.
        batch_size: most samples per batch; changes nothing beyond rounding.
        memory: most bytes of the host that the job may hold; None: all that is free.
        scratch: folder for sums that do not fit in memory; None: that of temporary files.
    """

    identification: Sequence[Sample]
    contrast: Sequence[Sample] = ()
    adapter: Path | None = None
    batch_size: int = 8
    memory: int | None = None
    scratch: Path | None = None


class Chosen(NamedTuple):
    """Rows of the responses tables that a name stands for, and why others were left out."""

    rows: list[dict]
    skipped: dict[str, int]


def choose(
    name: Name,
    responses: Mapping[str, pa.Table],
    n: int,
    keep: dict[str, str],
    shared: pa.Table | None = None,
) -> Chosen:
    """The first ``n`` usable identification prompts of each part of ``name``; a half takes the first n // 2.

    A block ``a@25x2`` takes the second 25 of them, whatever n is.

    Args:
        name: the parsed name; pooled parts are concatenated in its order.
        responses: dataset -> its responses table.
        n: prompts per whole dataset; fewer are taken where fewer were kept, and the stamp says how many.
        keep: dataset -> "refused", "complied" or "all".
        shared: the shared-prompts table, to leave out prompts that a dataset earlier in the alphabet has too.

    Raises:
        StudyError: no prompt is left for a part.
    """
    taken, skipped = [], {}
    drop = prompts_to_drop(shared) if shared is not None else {}
    for part in name.parts:
        kept, dropped = keep[part.dataset], drop.get(part.dataset, ())
        answered = [
            row
            for row in responses[part.dataset].to_pylist()
            if row["split"] == "identify" and part.half in (None, row["half"])
        ]
        unusable = {
            f"not {kept}": {r["prompt_id"] for r in answered if r["refused"] not in WANTED[kept]},
            "shared": {r["prompt_id"] for r in answered if r["prompt_id"] in dropped},
            "empty": {r["prompt_id"] for r in answered if r["n_tokens"] == 0},
        }
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
                    "`responses: keep: all`, more candidates, or another backbone",
                )
            )
        taken += chosen
        skipped |= {f"{part.dataset}: {reason}": len(ids) for reason, ids in unusable.items() if ids}
    return Chosen(taken, skipped)


def encode_samples(backbone: Backbone, rows: Sequence[dict]) -> list[Sample]:
    """Tokenise chosen rows.

    Raises:
        StudyError: a sample has no response token or does not fit the context; the ids are named.
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
                f"at least one response token and at most {limit} in all",
                "a filter in the dataset's card, or a smaller `max_new_tokens`",
            )
        )
    return samples


def longest_first(samples: Sequence[Sample]) -> list[Sample]:
    """The order in which samples are passed, whatever the batch: memory peaks at once, or never."""
    return sorted(samples, key=lambda sample: (-len(sample.ids), sample.prompt_id))


def batches(samples: Sequence[Sample], size: int, pad_id: int = 0) -> Iterator[Batch]:
    """Right-padded batches of up to ``size`` samples, longest first."""
    ordered = longest_first(samples)
    for start in range(0, len(ordered), size):
        yield padded(ordered[start : start + size], pad_id)


def padded(group: Sequence[Sample], pad_id: int = 0) -> Batch:
    """One right-padded batch, rows in the order given."""
    lengths = torch.tensor([len(s.ids) for s in group])[:, None]
    prompts = torch.tensor([s.prompt_length for s in group])[:, None]
    position = torch.arange(int(lengths.max()))[None, :]
    input_ids = torch.full((len(group), int(lengths.max())), pad_id)
    for row, sample in zip(input_ids, group, strict=True):
        row[: len(sample.ids)] = torch.tensor(sample.ids)
    real = position < lengths
    return Batch(
        tuple(s.prompt_id for s in group),
        input_ids,
        real.long(),
        real & (position >= prompts),
        (position >= prompts - 1) & (position < lengths - 1),
    )
