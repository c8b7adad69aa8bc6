"""Run one scoring job: from a backbone, a method and a name to the stored scores of every address."""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import torch
from torch import Tensor

from safety_regions.formats.contracts import score_contract
from safety_regions.formats.parquet import write_groups
from safety_regions.model.backbone import Backbone
from safety_regions.scoring.keep import as_table, keep_top
from safety_regions.scoring.method import Method
from safety_regions.scoring.sample import sample_mask
from safety_regions.scoring.samples import Chosen, Samples, encode_samples
from safety_regions.scoring.store import stored
from safety_regions.units.names import Name


class Job(NamedTuple):
    """Settings of a scoring job: the method, its options, and which scores to store.

    Attributes:
        method: from `safety_regions.methods.load_method`.
        options: every option of the method, with defaults filled in.
        kept: scope -> stored fraction (0-1].
        batch_size, memory, scratch: as in `Samples`.
    """

    method: Method
    options: dict
    kept: dict[str, float]
    batch_size: int = 8
    memory: int | None = None
    scratch: Path | None = None


class Group(NamedTuple):
    """Two row groups of one address: its stored scores, and those of its fixed sample (none of layers and ranks)."""

    stored: pa.Table
    sample: pa.Table


class Scores(NamedTuple):
    """The row groups of each address, and the metadata of the score table."""

    groups: Iterator[Group]
    metadata: dict


def score(
    backbone: Backbone,
    shuffles: Sequence[Name],
    job: Job,
    chosen: Chosen,
    contrast: Chosen | None = None,
    adapter: Path | None = None,
) -> Iterator[Scores]:
    """Score every unit of ``backbone`` on the chosen prompts, once for each name.

    Args:
        shuffles: names for the same prompts that differ only in their shuffle, so evidence is gathered once. A pool
            of shuffled members (``a~1+b~1``) is alone: its evidence is gathered member by member.
        contrast: ordinary prompts, for a method with a contrast dataset.
        adapter: directory of a LoRA adapter, for a method that scores an adapter.

    Raises:
        StudyError: a sample does not fit, or a value is not finite.
    """
    method = job.method
    against = encode_samples(backbone, contrast.rows) if contrast else ()
    samples = Samples(
        encode_samples(backbone, chosen.rows), against, adapter, job.batch_size, job.memory, job.scratch
    )
    if shuffles[0].apart:
        gathered = _pool_of_shuffles(backbone, shuffles[0], job, samples, chosen.counts)
    else:
        gathered = method.gather(backbone, samples, job.options)
    metadata = {
        "granularity": method.granularity.name,
        "shapes": _shapes(backbone, gathered, job),
        "weight_shapes": backbone.shapes,
        "kept": job.kept,
        "method": method.name,
        "options": job.options,
        "samples_used": len(samples.identification),
        "prompts_used": [sample.prompt_id for sample in samples.identification],
        "samples_skipped": chosen.skipped,
        "response_tokens": sum(len(s.ids) - s.prompt_length for s in samples.identification),
    }
    for name in shuffles:
        ready = name.shuffle is None or name.apart
        evidence = gathered if ready else method.shuffled(gathered, _seed(name), name.kind)
        findings = method.findings(backbone, evidence, job.options)
        yield Scores(_groups(backbone, evidence, job), {**metadata, "found": findings, "name": str(name)})


def write_scores(path: str | Path, sample: str | Path, scores: Scores, labels: dict) -> None:
    """Write the score table, and the scores of the fixed sample of units as a table of the same kind.

    Args:
        path, sample: the two files. The sample keeps no best units, so its metadata has an empty ``kept``.
        scores: from `score`; its groups are used up.
        labels: more metadata.
    """
    contract, metadata = score_contract(scores.metadata["granularity"]), labels | scores.metadata
    samples: list[pa.Table] = []

    def kept() -> Iterator[pa.Table]:
        for group in scores.groups:
            samples.append(group.sample)
            yield group.stored

    write_groups(path, kept(), contract, metadata)
    write_groups(sample, samples, contract, metadata | {"kept": {}})


def _pool_of_shuffles(
    backbone: Backbone, name: Name, job: Job, samples: Samples, counts: Sequence[int]
) -> Any:
    """The pooled evidence of the parts of ``name``, each shuffled as in a name of its own (``a~1``).

    A block ``a@25`` is shuffled like the whole set, so that a set moves alike in pools with other numbers of prompts.

    Args:
        samples, counts: of all parts, and how many samples each part has.
    """
    merged, seen, rest = None, [], list(samples.identification)
    for part, n in zip(name.parts, counts, strict=True):
        own, rest = rest[:n], rest[n:]
        found = job.method.gather(backbone, samples._replace(identification=own), job.options)
        alone = Name((part._replace(size=None, block=1),), name.shuffle, name.kind)
        found = job.method.shuffled(found, _seed(alone), name.kind)
        merged = found if merged is None else job.method.merge(merged, found, (seen, own), job.options)
        if isinstance(merged, Mapping):  # put away, so that at most one member's evidence is in memory
            merged = {address: stored(values, samples) for address, values in merged.items()}
        seen = seen + own
    return merged


def _shapes(backbone: Backbone, evidence: Any, job: Job) -> dict[str, list[int]]:
    """Address -> shape of its scores. Those of ranks are not computed twice: each is an eigenproblem."""
    if job.method.granularity.subspaces:
        return {where: [min(shape)] for where, shape in backbone.shapes.items()}
    found = job.method.scores(backbone, evidence, job.options)
    return {where: list(values.shape) for where, values in found}


def _seed(name: Name) -> int:
    """The seed of a name's shuffle. It depends on the full name, so that ``a~7`` and ``b~7`` are independent."""
    return zlib.crc32(str(name).encode())


def _groups(backbone: Backbone, evidence: Any, job: Job) -> Iterator[Group]:
    """Yield the stored scores of each address and those of its sample."""
    kind = job.method.granularity

    def scored() -> Iterator[tuple[str, Tensor]]:
        return job.method.scores(backbone, evidence, job.options)

    for address, scores, mask in keep_top(scored, job.kept):
        details = job.method.details(backbone, evidence, job.options, address)
        unsampled = kind.whole_layers or kind.subspaces
        sample = torch.zeros_like(mask) if unsampled else sample_mask(address, scores)
        yield Group(as_table(kind, address, scores, mask, details), as_table(kind, address, scores, sample))
