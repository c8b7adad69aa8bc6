"""The file of a region: a safetensors file with one uint8 vector of packed bits per address, read lazily.

Metadata values are JSON (format version 2):

=============================  =========================================================================
``schema``, ``version``        ``"region"``, 2
``granularity``                weight, neuron or layer
``scope``, ``fraction``        how the units were selected
``shapes``                     address -> [out, in] of weights, [n] of neurons; "layers" -> [L] of layers
``available``, ``selected``    address -> units that could have been selected, units that were
``n_units``, ``n_selected``    totals over all addresses
``bits``                       address -> crc32 of its packed bits, checked whenever they are read
``checksum``                   crc32 of all other metadata
anything else                  the rest of the stamp: backbone, method, name, refinement, seeds, ...
=============================  =========================================================================
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import numpy as np

from safety_regions.errors import StudyError, explain
from safety_regions.formats.files import REMEDY, finished_at

SCHEMA = {"schema": "region", "version": 2}
DERIVED = (*SCHEMA, "shapes", "available", "selected", "n_units", "n_selected", "bits", "checksum")
BLOCK = 1 << 15


class Block(NamedTuple):
    """The same stretch of one address in several regions: ``bits`` is uint8, (regions, bytes)."""

    address: str
    bits: np.ndarray


def count_bits(bits: np.ndarray) -> int:
    """The number of set bits of a uint8 array."""
    return int(np.bitwise_count(bits).sum(dtype=np.int64))


def n_bytes(shape: Sequence[int]) -> int:
    """Bytes that the packed bits of an address of this shape take."""
    return -(-math.prod(shape) // 8)


def check_padding(where: object, tail: np.ndarray, shape: Sequence[int]) -> None:
    """Raise `StudyError` unless the bits beyond the last unit are 0; ``tail`` ends with the last byte."""
    used = math.prod(shape) % 8
    if used and tail[-1] & (0xFF >> used):
        raise StudyError(explain(where, "bits set beyond the last unit", "0 there", REMEDY))


def write_bits(path: str | Path, masks: Mapping[str, np.ndarray], metadata: Mapping[str, object]) -> None:
    """Write packed bits and metadata, atomically; the checksums are added here.

    By hand, not by safetensors' own writer: that one puts metadata in random order, and the same region should
    be the same bytes. Its reader, in turn, reads a whole address where a piece is asked for.
    """
    masks = {where: np.ascontiguousarray(mask) for where, mask in masks.items()}
    metadata = {**metadata, "bits": {where: crc32(mask) for where, mask in masks.items()}}
    texts = {key: json.dumps(metadata[key]) for key in sorted(metadata)}
    texts["checksum"] = json.dumps(_checksum(texts))
    header = json.dumps(
        {"__metadata__": texts, **_tensors({w: mask.size for w, mask in masks.items()})}
    ).encode()
    header += b" " * (-len(header) % 8)
    with finished_at(path) as temporary, open(temporary, "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for mask in masks.values():
            file.write(mask)


class RegionFile:
    """A region on disk: its metadata checked, its bits read address by address, when asked for.

    Attributes:
        path: the file.
        shapes: address -> shape, addresses in order.
        available, selected: address -> units that could have been selected, units that were.
        stamp: the rest of the metadata.

    Raises:
        StudyError: the file is missing, damaged, or no region.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path
        try:
            header, data = _read_header(Path(path))
            metadata = _parse(path, header.pop("__metadata__"))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            found = f"an unreadable region ({type(error).__name__})"
            raise StudyError(explain(path, found, "a 'region' file", REMEDY)) from None
        self.shapes = {where: tuple(shape) for where, shape in metadata["shapes"].items()}
        self.available, self.selected = metadata["available"], metadata["selected"]
        self._bits = metadata["bits"]
        self.stamp = {key: value for key, value in metadata.items() if key not in DERIVED}
        tensors = _tensors({where: n_bytes(shape) for where, shape in self.shapes.items()})
        ends = [tensor["data_offsets"][1] for tensor in tensors.values()]
        if header != tensors or Path(path).stat().st_size != data + max(ends, default=0):
            raise StudyError(explain(path, "tensors that do not fit", "one for each address's shape", REMEDY))
        self._starts = {where: data + tensor["data_offsets"][0] for where, tensor in tensors.items()}

    def read(self, where: str, start: int, stop: int) -> np.ndarray:
        """Bytes ``start`` to ``stop`` of an address, uint8, not checked."""
        count = min(stop, n_bytes(self.shapes[where])) - start
        return np.fromfile(self.path, np.uint8, count, offset=self._starts[where] + start)

    def mask(self, where: str) -> np.ndarray:
        """All packed bits of an address, checked."""
        bits = self.read(where, 0, n_bytes(self.shapes[where]))
        self.check(where, crc32(bits))
        return bits

    def check(self, where: str, checksum: int) -> None:
        """Raise unless the bits of an address with this crc32 are what was written."""
        if checksum != self._bits[where]:
            raise StudyError(
                explain(f"{self.path}: {where}", "damaged bits", "bits that fit their checksum", REMEDY)
            )


def iter_blocks(paths: Sequence[str | Path], size: int = BLOCK) -> Iterator[Block]:
    """Walk through several regions of the same shapes at once, ``size`` bytes of each at a time.

    The bits are checked as they pass: an address that is damaged raises after its last block.

    Yields:
        The blocks of each address in order, addresses in the files' order.

    Raises:
        StudyError: a file is missing or damaged, or the shapes differ.
    """
    files = [RegionFile(path) for path in paths]
    for file in files:
        if file.shapes != files[0].shapes:
            raise StudyError(explain(file.path, "other addresses or shapes", f"those of {files[0].path}"))
    for where in files[0].shapes:
        yield from _blocks_of(files, where, size)


def _blocks_of(files: Sequence[RegionFile], where: str, size: int) -> Iterator[Block]:
    checksums = [0] * len(files)
    for start in range(0, n_bytes(files[0].shapes[where]), size):
        pieces = [file.read(where, start, start + size) for file in files]
        checksums = [crc32(piece, checksum) for piece, checksum in zip(pieces, checksums, strict=True)]
        yield Block(where, np.stack(pieces))
    for file, checksum in zip(files, checksums, strict=True):
        file.check(where, checksum)


def _read_header(path: Path) -> tuple[dict, int]:
    """The header of a safetensors file, and where its data begin."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            raise ValueError("a header longer than the file")
        return json.loads(file.read(length)), 8 + length


def _tensors(sizes: Mapping[str, int]) -> dict[str, dict]:
    """The header's entries of uint8 vectors that lie one behind the other."""
    ends = dict(zip(sizes, np.cumsum([0, *sizes.values()])[1:].tolist(), strict=True))
    return {
        where: {"dtype": "U8", "shape": [size], "data_offsets": [ends[where] - size, ends[where]]}
        for where, size in sizes.items()
    }


def _checksum(texts: Mapping[str, str]) -> int:
    return crc32(json.dumps(texts, sort_keys=True).encode())


def _parse(path: str | Path, texts: dict[str, str]) -> dict:
    found = {key: json.loads(texts.get(key, "null")) for key in SCHEMA}
    if found != SCHEMA:
        raise StudyError(explain(path, f"metadata {found}", str(SCHEMA), REMEDY))
    if json.loads(texts.pop("checksum")) != _checksum(texts):
        raise StudyError(explain(path, "damaged metadata", "metadata that fits its checksum", REMEDY))
    return {key: json.loads(text) for key, text in texts.items()}
