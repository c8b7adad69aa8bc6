"""Tensors in temporary files: memory-mapped, so that they take no memory that the kernel cannot take back.

The files are unlinked, and disappear with their tensors. A file is written before it is mapped: writing to mapped
memory on a full disk would kill the process.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from safety_regions.errors import StudyError, explain
from safety_regions.formats.files import FULL


def in_file(values: Tensor, folder: Path | None) -> Tensor:
    """A copy of a tensor in a temporary file in ``folder``; None: the default temporary directory.

    Raises:
        StudyError: the disk is full.
    """
    rows = Rows(folder)
    rows.add(values.reshape(1, -1))
    return rows.mapped().view(values.shape)


def park(model: nn.Module, folder: Path | None) -> None:
    """Move all parameters and buffers of a model on the CPU to files; the model works as before.

    The kernel keeps in memory what there is room for, and reads the rest again.

    Raises:
        StudyError: the disk is full.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.numel():
            tensor.data = in_file(tensor.data, folder)


class Rows:
    """A matrix that grows in a temporary file."""

    def __init__(self, folder: Path | None) -> None:
        with _full_disk():
            self._file = tempfile.NamedTemporaryFile(dir=folder)  # noqa: SIM115  (closed when it is mapped)

    def add(self, values: Tensor) -> None:
        """Append rows (n, width), all of one width and dtype, from any device."""
        values = values.cpu().contiguous()
        self._width, self._dtype = values.shape[1], values.dtype
        with _full_disk():
            self._file.write(values.flatten().view(torch.uint8).numpy().data)

    def mapped(self) -> Tensor:
        """The matrix (rows, width); nothing can be added afterwards."""
        with _full_disk(), self._file as file:
            file.flush()
            size = file.tell() // self._dtype.itemsize
            values = torch.from_file(file.name, shared=True, size=size, dtype=self._dtype)
        return values.view(-1, self._width)


@contextmanager
def _full_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        hint = "free some space, or request more memory: what does not fit in memory is stored in a file"
        raise StudyError(explain("scoring", "no space left on the disk", hint=hint)) from None
