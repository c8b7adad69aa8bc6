"""Tell a file that the user replaced from the one before it. Torch-free.

Snakemake compares times: a file that is replaced by one with an older time stamp (``cp -p``, ``rsync -a``) is not seen.
So jobs that read the user's own files also get a stamp of them as a param.
"""

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

LARGE = 64 * 2**20
"""Bytes above which a file is not read for its stamp; its size and time are taken instead."""


def stamp(files: Iterable[str | Path]) -> str:
    """A hash of 16 hex digits of names and contents (of large files: sizes and times), whatever folder they are in."""
    parts = []
    for path in sorted(map(Path, files)):
        found = path.stat()
        parts.append(f"{path.name} {_of(path.absolute(), found.st_size, found.st_mtime_ns)}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


@cache
def _of(path: Path, size: int, time: int) -> str:
    # Whole seconds, because not every file system keeps fractions when a study is copied.
    return f"{size} {time // 10**9}" if size > LARGE else hashlib.sha256(path.read_bytes()).hexdigest()
