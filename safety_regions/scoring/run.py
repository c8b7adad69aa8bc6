"""One scoring job: a backbone, a method and a name in; the kept scores of every address out."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from safety_regions.backbone import Backbone
from safety_regions.methods import method_cards
from safety_regions.names import Name
from safety_regions.scoring.evidence import shuffle_evidence
from safety_regions.scoring.keep import as_table, keep_top
from safety_regions.scoring.samples import Chosen, Samples, encode_samples


class Job(NamedTuple):
    """What a score is made of: the method's module, its options, and what is stored.

    Attributes:
        method: module name on the shelf of methods.
        options: every option of the method, defaults filled in.
        kept: scope -> stored fraction (0-1].
        batch_size: samples per pass; changes nothing beyond rounding.
    """

    method: str
    options: dict
    kept: dict[str, float]
    batch_size: int = 8


class Scores(NamedTuple):
    """Row groups of the score table, one per address, and the stamp of the file."""

    groups: Iterator[pa.Table]
    stamp: dict


def score(
    backbone: Backbone,
    name: Name,
    job: Job,
    chosen: Chosen,
    contrast: Chosen | None = None,
    adapter: Path | None = None,
) -> Scores:
    """Score every unit of ``backbone`` on the chosen prompts.

    Args:
        contrast: ordinary prompts, for a method that contrasts.
        adapter: directory of a LoRA adapter, for a method that scores one.

    Raises:
        StudyError: a sample does not fit, or a value is not finite.
    """
    method = importlib.import_module(f"safety_regions.methods.{job.method}")
    against = encode_samples(backbone, contrast.rows) if contrast else ()
    samples = Samples(encode_samples(backbone, chosen.rows), against, adapter, job.batch_size)
    evidence = method.gather(backbone, samples, job.options)
    if name.shuffle is not None:
        evidence = getattr(method, "shuffle", shuffle_evidence)(evidence, name.shuffle)
    card = method_cards()[job.method]
    findings = getattr(method, "findings", lambda *_: {})(backbone, evidence, job.options)
    shapes = {
        address: list(scores.shape) for address, scores in method.scores(backbone, evidence, job.options)
    }
    stamp = {
        "granularity": card["granularity"],
        "shapes": shapes,
        "weight_shapes": backbone.shapes,
        "kept": job.kept,
        "method": job.method,
        "options": job.options,
        "samples_used": len(samples.identification),
        "samples_skipped": chosen.skipped,
        "response_tokens": sum(len(s.ids) - s.prompt_length for s in samples.identification),
        "found": findings,
    }
    kept = keep_top(lambda: method.scores(backbone, evidence, job.options), job.kept)
    details = getattr(method, "details", lambda *_: {})
    tables = (as_table(*one, details(backbone, evidence, job.options, one[0])) for one in kept)
    return Scores(tables, stamp)
