"""What a method is: the functions that a module on the shelf defines, and what takes their place where it does not."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pyarrow as pa
from torch import Tensor

from safety_regions.formats.contracts import Contract
from safety_regions.formats.region import Region
from safety_regions.model.backbone import Backbone
from safety_regions.scoring.evidence import shuffle_evidence
from safety_regions.scoring.samples import Samples
from safety_regions.units.granularity import Granularity


class Gather(Protocol):
    """Passes over the samples. What it returns goes to the method's other functions and to nothing else.

    Unless the method has a ``shuffle`` of its own, it is a mapping from addresses to tensors.
    """

    def __call__(self, backbone: Backbone, samples: Samples, options: dict) -> Any: ...


class Scores(Protocol):
    """Evidence combined with the weights: (address, scores) in flat order, float32; larger is more important.

    The shape of an address's scores has one axis for each of the granularity's ``axes``.
    """

    def __call__(self, backbone: Backbone, evidence: Any, options: dict) -> Iterator[tuple[str, Tensor]]: ...


class Details(Protocol):
    """Further columns of the score table, for one address: (units,) or (units, prompts) each."""

    def __call__(
        self, backbone: Backbone, evidence: Any, options: dict, address: str
    ) -> dict[str, Tensor]: ...


class Findings(Protocol):
    """What else was found, in words of JSON; it stands in the metadata of the score file under ``found``."""

    def __call__(self, backbone: Backbone, evidence: Any, options: dict) -> dict: ...


class Select(Protocol):
    """A region that the method selects itself (CARD: ``own_selections``).

    ``sweep`` is the table of the method's sweep, None where the selection does not need it.
    """

    def __call__(
        self, scores: str | Path, selection: str, sweep: str | Path | None, allow_empty: bool
    ) -> Region: ...


class Sweep(NamedTuple):
    """A table of what was measured, its contract, and what was found, for its metadata."""

    table: pa.Table
    contract: Contract
    found: dict


class MeasureSweep(Protocol):
    """Measurements on the backbone after scoring (CARD: ``sweep``).

    ``prompts`` are those of the dataset that the CARD's option names; ``found`` is what `Findings` gave.
    """

    def __call__(
        self, backbone: Backbone, prompts: Sequence[str], found: dict, options: dict, batch_size: int
    ) -> Sweep: ...


@dataclass(frozen=True)
class Method:
    """A method of the shelf, ready to score; see `safety_regions.methods.load_method`."""

    name: str
    granularity: Granularity
    gather: Gather
    scores: Scores
    details: Details = lambda backbone, evidence, options, address: {}
    findings: Findings = lambda backbone, evidence, options: {}
    shuffle: Callable[[Any, int], Any] = shuffle_evidence
