"""Read a score table address by address, for any order of its rows."""

from math import prod
from pathlib import Path

import numpy as np
import pyarrow as pa

from safety_regions.errors import StudyError, explain, unknown
from safety_regions.formats.columns import categories, lists, numbers
from safety_regions.formats.contracts import score_contract
from safety_regions.formats.files import REMEDY
from safety_regions.formats.parquet import open_table, read_metadata
from safety_regions.units.addresses import LAYERS, address, sort_addresses
from safety_regions.units.granularity import GRANULARITIES

NOT_METADATA = ("schema", "version", "shapes", "kept")


class ScoreFile:
    """A score table by addresses; scores are read on request and not cached.

    Attributes:
        path: the file.
        granularity: granularity of the scored units.
        shapes: address -> shape of all its units, stored or not; addresses are sorted.
        kept: scope -> stored fraction (0-1]: at least the best units up to this fraction are stored in every group of
            the scope.
        metadata: the other metadata of the file.

    Raises:
        StudyError: the file is missing, damaged, or not a score table.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path
        try:
            metadata = read_metadata(path)
            granularity, shapes, self.kept = metadata["granularity"], metadata["shapes"], metadata["kept"]
        except KeyError as error:
            found = f"metadata without {error}"
            raise StudyError(explain(path, found, "a score table", REMEDY)) from None
        if granularity not in GRANULARITIES:
            raise StudyError(unknown(path, "granularity", granularity, GRANULARITIES))
        self.granularity = GRANULARITIES[granularity]
        self._file = open_table(path, score_contract(granularity))
        self.shapes = {where: tuple(shapes[where]) for where in sort_addresses(shapes)}
        self.metadata = {key: value for key, value in metadata.items() if key not in NOT_METADATA}
        self._groups = self._find_addresses()

    @property
    def only_positive(self) -> bool:
        """Whether a region may hold only units with a positive score: the option ``positive`` of the method."""
        return bool(self.metadata.get("options", {}).get("positive"))

    def scores(self, where: str) -> np.ndarray:
        """The stored scores of an address, float32, one per stored unit.

        Raises:
            StudyError: a score is not finite.
        """
        scores = self._column(where, "score")
        bad = scores.size - np.count_nonzero(np.isfinite(scores))
        if bad:
            raise StudyError(
                explain(f"{self.path}: {where}", f"{bad} scores NaN or infinite", "finite scores")
            )
        return scores

    def units(self, where: str) -> np.ndarray:
        """The flat indices (C order) of the stored units of an address, int64, in the order of `scores`.

        Raises:
            StudyError: a unit lies outside the address's shape.
        """
        columns = [self._column(where, name) for name in self.granularity.axes]
        for name, index, size in zip(self.granularity.axes, columns, self.shapes[where], strict=True):
            if index.size and not 0 <= index.min() <= index.max() < size:
                found = f"{name} {index.min()} to {index.max()}"
                raise StudyError(explain(f"{self.path}: {where}", found, f"0 to {size - 1}"))
        return np.ravel_multi_index(columns, self.shapes[where])

    def all_units(self, where: str) -> np.ndarray:
        """`units` of an address of which every unit is stored.

        Raises:
            StudyError: a unit is missing, or stored twice.
        """
        units, n = self.units(where), prod(self.shapes[where])
        if not np.array_equal(np.sort(units), np.arange(n)):
            expected = f"{n} {self.granularity.plural}, each once"
            raise StudyError(explain(f"{self.path}: {where}", f"{units.size} rows", expected, REMEDY))
        return units

    def by_prompt(self, where: str, name: str) -> np.ndarray:
        """A list column (``ranks`` or ``importances``) of an address: (stored units, prompts), rows as in `units`.

        Or ``direction``, (stored units, outputs).

        Raises:
            StudyError: the lists are missing or of unequal lengths, or a value is not finite.
        """
        what = f"{self.path}: {where}: {name}"
        groups = self._groups.get(where, [])
        parts = [lists(what, self._read(group, [name])[name])[rows] for group, rows in groups]
        widths = sorted({part.shape[1] for part in parts})
        if len(widths) != 1 or widths == [0]:
            raise StudyError(
                explain(what, f"lists of {widths} values", "lists of equal length, at least 1", REMEDY)
            )
        values = np.concatenate(parts)
        bad = values.size - np.count_nonzero(np.isfinite(values))
        if bad:
            raise StudyError(explain(what, f"{bad} values NaN or infinite", "finite numbers"))
        return values

    def _find_addresses(self) -> dict[str, list[tuple[int, slice | np.ndarray]]]:
        """Address -> [(row group, rows of the address in it)]: all rows if each address has its own row group."""
        found: dict[str, list] = {}
        for group in range(self._file.num_row_groups):
            for where, rows in self._addresses_of(group):
                if where not in self.shapes:
                    raise StudyError(
                        explain(self.path, f"scores of '{where}'", "addresses listed in its metadata", REMEDY)
                    )
                found.setdefault(where, []).append((group, rows))
        return found

    def _addresses_of(self, group: int) -> list[tuple[str, slice | np.ndarray]]:
        if self.granularity.whole_layers:
            return [(LAYERS, slice(None))]
        table = self._read(group, ["layer", "projection"])
        projection = categories(table, "projection")
        codes = numbers(table, "layer") * len(projection.words) + projection.codes
        present = np.flatnonzero(np.bincount(codes))
        places = [divmod(int(code), len(projection.words)) for code in present]
        rows = [slice(None)] if len(present) == 1 else [np.flatnonzero(codes == code) for code in present]
        return [(address(layer, projection.words[p]), r) for (layer, p), r in zip(places, rows, strict=True)]

    def _column(self, where: str, name: str) -> np.ndarray:
        """One column of an address; empty if no unit is stored, which can happen for scopes wider than an address."""
        empty = np.zeros(0, self._file.schema_arrow.field(name).type.to_pandas_dtype())
        groups = self._groups.get(where, [])
        return np.concatenate([empty, *(numbers(self._read(g, [name]), name)[rows] for g, rows in groups)])

    def _read(self, group: int, columns: list[str]) -> pa.Table:
        try:
            return self._file.read_row_group(group, columns=columns)
        except (OSError, pa.ArrowInvalid) as error:
            found = f"damaged data ({type(error).__name__})"
            raise StudyError(explain(self.path, found, "a score table", REMEDY)) from None
