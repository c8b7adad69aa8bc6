"""A scoring job: open the backbone once, then write the score tables of any prompts."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from safety_regions.model.backbone import Backbone
from safety_regions.model.loading import load_with_base
from safety_regions.scoring import run
from safety_regions.scoring.method import Method
from safety_regions.scoring.samples import Chosen
from safety_regions.units.names import Name


class ScoringJob(NamedTuple):
    """What the scores of a job have in common.

    Attributes:
        backbone: the model.
        settings: method, options, kept fractions, limits.
        labels: metadata of every table: the backbone's name and the method's label.
        contrast: ordinary prompts, for a method with a contrast dataset.
        adapter: directory of the LoRA adapter, for a method that scores one.
    """

    backbone: Backbone
    settings: run.Job
    labels: dict[str, str]
    contrast: Chosen | None = None
    adapter: Path | None = None

    def write(
        self,
        paths: Sequence[str | Path],
        samples: Sequence[str | Path],
        names: Sequence[Name],
        chosen: Chosen,
    ) -> None:
        """Score the chosen prompts and write the tables of each name; the names differ only in their shuffle.

        Args:
            paths, samples: files for the scores and for those of the fixed sample of units; see `run.write_scores`.
        """
        scores = run.score(self.backbone, names, self.settings, chosen, self.contrast, self.adapter)
        for path, sample, found in zip(paths, samples, scores, strict=True):
            run.write_scores(path, sample, found, self.labels | self.backbone.metadata)


def open_job(
    card: dict, checkpoint: Sequence[str | Path], base: Sequence[str | Path], before: Sequence[str | Path],
    method: Method, options: dict, kept: dict[str, float], labels: dict[str, str], contrast: Chosen | None,
    adapter: Sequence[str | Path], batch_size: int, memory_mb: int, scratch: Path,
) -> ScoringJob:  # fmt: skip
    """Load the backbone of a scoring job.

    Args:
        card, checkpoint, base, before: see `load_with_base`.
        method: from `safety_regions.methods.load_method`; ``options``: all of its options, with defaults filled in.
        kept: scope -> stored fraction (0-1].
        labels, contrast: see `ScoringJob`.
        adapter: the files of the adapter, empty for none.
        batch_size: samples per pass; ``memory_mb``: maximum host memory; ``scratch``: folder for temporary files.
    """
    settings = run.Job(method, options, kept, batch_size, memory_mb * 10**6, scratch)
    folder = Path(adapter[0]).parent if adapter else None
    backbone = load_with_base(card, checkpoint, base, before, settings.memory, scratch)
    return ScoringJob(backbone, settings, labels, contrast, folder)
