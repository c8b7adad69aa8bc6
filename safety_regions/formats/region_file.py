"""The file format of a region (version 3): packed bits in a safetensors file, read address by address.

Tensors: one uint8 vector per address, the packed bits of its units (`safety_regions.formats.region`); for ranks, one
float32 matrix per address, an orthonormal basis (`safety_regions.formats.subspaces`). Metadata: a single key
``region``, whose value is a JSON object with sorted keys. It is one key because safetensors writes several keys in
random order, and equal regions should give identical files.

=============================  =========================================================================
``version``                    3
``granularity``                weight, neuron, head, layer, lora_weight or rank
``scope``, ``fraction``        how the units were selected
``shapes``                     address -> [out, in] for weights, [n] for neurons, [ranks]; "layers" -> [L] for layers
``available``, ``selected``    address -> number of units that could have been selected, and that were
``n_units``, ``n_selected``    totals over all addresses
``crc32``                      address -> crc32 of its tensor's bytes, checked whenever they are read
other keys                     further metadata: backbone, method, name, refinement, seeds, ...
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
from safety_regions.formats.files import REMEDY, finished_at, remedy
from safety_regions.units.addresses import sort_addresses
from safety_regions.units.granularity import GRANULARITIES

KEY, VERSION = "region", 3
DERIVED = ("version", "shapes", "available", "selected", "n_units", "n_selected", "crc32")
BLOCK = 1 << 18


class Block(NamedTuple):
    """The same slice of one address in several regions: ``bits`` is uint8 of shape (regions, bytes)."""

    address: str
    bits: np.ndarray


def count_bits(bits: np.ndarray) -> int:
    """The number of set bits of a uint8 array."""
    return int(np.bitwise_count(bits).sum(dtype=np.int64))


def n_bytes(shape: Sequence[int]) -> int:
    """Number of bytes for the packed bits of an address of this shape."""
    return -(-math.prod(shape) // 8)


def check_padding(where: object, tail: np.ndarray, shape: Sequence[int]) -> None:
    """Raise `StudyError` unless the bits beyond the last unit are 0; ``tail`` ends with the last byte."""
    used = math.prod(shape) % 8
    if used and tail[-1] & (0xFF >> used):
        raise StudyError(explain(where, "bits set after the last unit", "zeros", REMEDY))


def write_tensors(
    path: str | Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, object]
) -> None:
    """Write packed bits or bases, and metadata, atomically; adds the format version and checksums."""
    tensors = {where: np.ascontiguousarray(tensor) for where, tensor in tensors.items()}
    checksums = {where: crc32(tensor) for where, tensor in tensors.items()}
    text = json.dumps({**metadata, "version": VERSION, "crc32": checksums}, sort_keys=True)
    with finished_at(path) as temporary:
        _save(temporary, tensors, text)


def _save(path: Path, tensors: dict[str, np.ndarray], text: str) -> None:
    """Save with safetensors, but raise the usual errors and keep the default file mode.

    safetensors 0.8 reports a full disk as a `SafetensorError`, and creates files that only their owner can read
    (https://github.com/safetensors/safetensors/issues/782).
    """
    path.touch()
    mode = path.stat().st_mode
    try:
        save_file(tensors, path, {KEY: text})
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        raise OSError(int(number[1]) if number else 0, str(error), str(path)) from None
    path.chmod(mode)


class RegionFile:
    """An open region file. Its metadata is checked at once; the bits of an address are read on request.

    Attributes:
        path: the file.
        shapes: address -> shape, in the order of addresses.
        available, selected: address -> number of units that could have been selected, and that were.
        metadata: the other metadata.
        has_bases: whether it stores bases of subspaces, not bits.

    Raises:
        StudyError: the file is missing, damaged, or not a region file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path
        try:
            # pread instead of mmap: mapped pages count as memory of this process until the file is closed.
            self._file = safe_open(path, "numpy", backend="pread")
            metadata = json.loads((self._file.metadata() or {})[KEY])
            if metadata["version"] != VERSION:
                raise StudyError(
                    explain(path, f"format version {metadata['version']}", f"{VERSION}", remedy(path))
                )
            shapes = {where: tuple(map(operator.index, s)) for where, s in metadata["shapes"].items()}
            tensors = {where: self._file.get_slice(where) for where in self._file.offset_keys()}
            kind = GRANULARITIES.get(metadata.get("granularity"))
            self.has_bases = kind is not None and kind.subspaces
            found = {where: (t.get_dtype(), t.get_shape()) for where, t in tensors.items()}
            if found != {where: self._stored(metadata, where, found.get(where)) for where in shapes}:
                found, expected = (
                    "tensors that do not match the shapes",
                    "one tensor per address, of its packed size or, of ranks, with a column for each",
                )
                raise StudyError(explain(path, found, expected, remedy(path)))
            self.shapes = {where: shapes[where] for where in sort_addresses(shapes)}
            self.available, self.selected, self._checksums = (
                {where: metadata[key][where] for where in self.shapes}
                for key in ("available", "selected", "crc32")
            )
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
            found = f"an unreadable region ({type(error).__name__})"
            raise StudyError(
                explain(path, found, f"a region file of version {VERSION}", remedy(path))
            ) from None
        self.metadata = {key: value for key, value in metadata.items() if key not in DERIVED}

    def _stored(self, metadata: dict, where: str, found: tuple | None) -> tuple[str, list[int]]:
        """Type and shape of the tensor that an address should have; a basis has as many rows as are found."""
        if not self.has_bases:
            return "U8", [n_bytes(metadata["shapes"][where])]
        return "F32", [*(found or ((), ()))[1][:1], metadata["selected"][where]]

    def mask(self, where: str) -> np.ndarray:
        """The packed bits of an address, a uint8 vector.

        Raises:
            StudyError: the bits are damaged (they do not match their checksum), or the region consists of subspaces.
        """
        if self.has_bases:
            hint = "safety_regions.formats.subspaces.read_subspaces"
            found, expected = "a region of ranks, which are subspaces", "a region of bits"
            raise StudyError(explain(self.path, found, expected, hint))
        return self._tensor(where, "bits")

    def basis(self, where: str) -> np.ndarray:
        """The orthonormal basis of an address, float32 (out, selected).

        Raises:
            StudyError: the basis is damaged (it does not match its checksum).
        """
        return self._tensor(where, "basis")

    def _tensor(self, where: str, what: str) -> np.ndarray:
        try:
            tensor = self._file.get_tensor(where)
        except (OSError, SafetensorError):
            tensor = None
        if tensor is None or crc32(tensor) != self._checksums[where]:
            raise StudyError(
                explain(
                    f"{self.path}: {where}",
                    f"damaged {what}",
                    f"{what} that match their checksum",
                    remedy(self.path),
                )
            )
        return tensor


def iter_blocks(paths: Sequence[str | Path], size: int = BLOCK) -> Iterator[Block]:
    """Read several regions of the same shapes in parallel, ``size`` bytes of each at a time.

    The bits of one address of every region are in memory at a time; their checksums are tested before the first block.

    Yields:
        The blocks of each address in order, with addresses in the files' order.

    Raises:
        StudyError: a file is missing or damaged, or the shapes differ.
    """
    files = [RegionFile(path) for path in paths]
    for file in files:
        if file.shapes != files[0].shapes:
            found, expected = "different addresses or shapes", f"the same as in {files[0].path}"
            raise StudyError(explain(file.path, found, expected))
    for where in files[0].shapes:
        yield from _blocks_of(files, where, size)


def _blocks_of(files: Sequence[RegionFile], where: str, size: int) -> Iterator[Block]:
    masks = [file.mask(where) for file in files]
    for start in range(0, masks[0].size, size):
        yield Block(where, np.stack([mask[start : start + size] for mask in masks]))
