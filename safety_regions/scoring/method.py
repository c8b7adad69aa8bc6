"""The interface of a method: the functions that its module defines, and the defaults of the optional ones."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pyarrow as pa
from torch import Tensor

from safety_regions.formats.contracts import Contract
from safety_regions.formats.region import Region
from safety_regions.model.backbone import Backbone
from safety_regions.model.batches import Sample
from safety_regions.scoring.evidence import merge_means, shuffle_evidence
from safety_regions.scoring.samples import Samples
from safety_regions.units.granularity import Granularity


class Gather(Protocol):
    """Run the samples through the backbone and return the evidence. Only the method's other functions use it.

    The evidence is a mapping from addresses to tensors, unless the method defines its own ``shuffle``.
    """

    def __call__(self, backbone: Backbone, samples: Samples, options: dict) -> Any: ...


class Scores(Protocol):
    """Combine evidence and weights: yield (address, scores) in flat order, float32; larger is more important.

    The shape of an address's scores has one axis for each of the granularity's ``axes``.
    """

    def __call__(self, backbone: Backbone, evidence: Any, options: dict) -> Iterator[tuple[str, Tensor]]: ...


class Details(Protocol):
    """Additional columns of the score table for one address: (units,) or (units, prompts) each."""

    def __call__(
        self, backbone: Backbone, evidence: Any, options: dict, address: str
    ) -> dict[str, Tensor]: ...


class Findings(Protocol):
    """Other results, as a JSON object; stored in the metadata of the score file under ``found``."""

    def __call__(self, backbone: Backbone, evidence: Any, options: dict) -> dict: ...


class Merge(Protocol):
    """The evidence of two groups of samples together, as if `Gather` had run both, up to rounding.

    Args:
        evidence, more: of the two groups.
        samples: the samples of the two groups, in the same order.
    """

    def __call__(
        self, evidence: Any, more: Any, samples: tuple[Sequence[Sample], Sequence[Sample]], options: dict
    ) -> Any: ...


class Select(Protocol):
    """Select a region by the method's own rule (CARD: ``own_selections``).

    ``sweep`` is the table of the method's sweep, or None if the selection does not need it.
    """

    def __call__(
        self, scores: str | Path, selection: str, sweep: str | Path | None, allow_empty: bool
    ) -> Region: ...


class Sweep(NamedTuple):
    """The table of measurements, its contract, and the results for its metadata."""

    table: pa.Table
    contract: Contract
    found: dict


class MeasureSweep(Protocol):
    """Take measurements on the backbone after scoring (CARD: ``sweep``).

    ``prompts`` (id -> text) come from the dataset that the CARD's option names; ``found`` is the result of `Findings`.
    """

    def __call__(
        self, backbone: Backbone, prompts: Mapping[str, str], found: dict, options: dict, batch_size: int
    ) -> Sweep: ...


@dataclass(frozen=True)
class Method:
    """A loaded method, ready to score; see `safety_regions.methods.load_method`."""

    name: str
    granularity: Granularity
    gather: Gather
    scores: Scores
    details: Details = lambda backbone, evidence, options, address: {}
    findings: Findings = lambda backbone, evidence, options: {}
    shuffle: Callable[[Any, int], Any] | None = None
    merge: Merge = lambda evidence, more, samples, options: merge_means(evidence, more, *map(len, samples))

    def shuffled(self, evidence: Any, seed: int, kind: str) -> Any:
        """The evidence after a shuffle of a kind in `names.SHUFFLES`; a method's own shuffle has only one kind."""
        return (
            shuffle_evidence(evidence, seed, kind) if self.shuffle is None else self.shuffle(evidence, seed)
        )
