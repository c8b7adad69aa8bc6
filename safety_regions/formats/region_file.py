"""The file of a region (format version 3): packed bits in a safetensors file, read address by address.

Tensors: one uint8 vector per address, the packed bits of its units (`safety_regions.formats.region`). Metadata: the
one key ``region``, whose value is a JSON object with sorted keys. One key, because safetensors writes several in
random order, and the same region should be the same bytes.

=============================  =========================================================================
``version``                    3
``granularity``                weight, neuron or layer
``scope``, ``fraction``        how the units were selected
``shapes``                     address -> [out, in] of weights, [n] of neurons; "layers" -> [L] of layers
``available``, ``selected``    address -> units that could have been selected, units that were
``n_units``, ``n_selected``    totals over all addresses
``crc32``                      address -> crc32 of its packed bits, checked whenever they are read
anything else                  the rest of the stamp: backbone, method, name, refinement, seeds, ...
=============================  =========================================================================
"""

import json
import math
import operator
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from safety_regions.errors import StudyError, explain
from safety_regions.formats.files import REMEDY, finished_at
from safety_regions.units.addresses import sort_addresses

KEY, VERSION = "region", 3
DERIVED = ("version", "shapes", "available", "selected", "n_units", "n_selected", "crc32")
BLOCK = 1 << 18


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
    """Write packed bits and metadata, atomically; version and checksums are added here."""
    masks = {where: np.ascontiguousarray(mask) for where, mask in masks.items()}
    checksums = {where: crc32(mask) for where, mask in masks.items()}
    text = json.dumps({**metadata, "version": VERSION, "crc32": checksums}, sort_keys=True)
    with finished_at(path) as temporary:
        _save(temporary, masks, text)


def _save(path: Path, masks: dict[str, np.ndarray], text: str) -> None:
    """safetensors' own writer, with the errors and the file mode of any other file.

    safetensors 0.8 reports a full disk as a `SafetensorError`, and makes a file that only its owner can read
    (https://github.com/safetensors/safetensors/issues/782).
    """
    path.touch()
    mode = path.stat().st_mode
    try:
        save_file(masks, path, {KEY: text})
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        raise OSError(int(number[1]) if number else 0, str(error), str(path)) from None
    path.chmod(mode)


class RegionFile:
    """A region on disk, kept open: its metadata checked, its bits read address by address, when asked for.

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
            # Read, not mapped: pages of a map count as this process's memory until the file is closed.
            self._file = safe_open(path, "numpy", backend="pread")
            metadata = json.loads((self._file.metadata() or {})[KEY])
            if metadata["version"] != VERSION:
                raise StudyError(explain(path, f"format version {metadata['version']}", f"{VERSION}", REMEDY))
            shapes = {where: tuple(map(operator.index, s)) for where, s in metadata["shapes"].items()}
            tensors = {where: self._file.get_slice(where) for where in self._file.offset_keys()}
            if {where: (t.get_dtype(), t.get_shape()) for where, t in tensors.items()} != {
                where: ("U8", [n_bytes(shape)]) for where, shape in shapes.items()
            }:
                found, expected = "tensors that do not fit", "one for each address's shape"
                raise StudyError(explain(path, found, expected, REMEDY))
            self.shapes = {where: shapes[where] for where in sort_addresses(shapes)}
            self.available, self.selected, self._checksums = (
                {where: metadata[key][where] for where in self.shapes}
                for key in ("available", "selected", "crc32")
            )
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
            found = f"an unreadable region ({type(error).__name__})"
            raise StudyError(explain(path, found, f"a region file of version {VERSION}", REMEDY)) from None
        self.stamp = {key: value for key, value in metadata.items() if key not in DERIVED}

    def mask(self, where: str) -> np.ndarray:
        """All packed bits of an address, uint8.

        Raises:
            StudyError: they are not what was written.
        """
        try:
            bits = self._file.get_tensor(where)
        except (OSError, SafetensorError):
            bits = None
        if bits is None or crc32(bits) != self._checksums[where]:
            expected = "bits that fit their checksum"
            raise StudyError(explain(f"{self.path}: {where}", "damaged bits", expected, REMEDY))
        return bits


def iter_blocks(paths: Sequence[str | Path], size: int = BLOCK) -> Iterator[Block]:
    """Walk through several regions of the same shapes at once, ``size`` bytes of each at a time.

    In memory are the bits of one address of each region, checked before its first block.

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
    masks = [file.mask(where) for file in files]
    for start in range(0, masks[0].size, size):
        yield Block(where, np.stack([mask[start : start + size] for mask in masks]))
