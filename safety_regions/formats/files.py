"""Files appear under their name only when they are complete."""

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safety_regions.errors import StudyError, explain

FULL = (errno.ENOSPC, errno.EDQUOT)
# What helps against any file that is damaged or of another version: all of them can be made again.
REMEDY = "delete the file and run snakemake again"


@contextmanager
def finished_at(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path``, renamed to it when the block ends without an error.

    Raises:
        StudyError: the disk is full; nothing is left at either path.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.errno not in FULL:
            raise
        hint = "free some space and run snakemake again; what is finished is kept"
        raise StudyError(explain(path, os.strerror(error.errno), "room to write it", hint)) from None
    finally:
        temporary.unlink(missing_ok=True)


def by_stem(paths: Iterable[str | Path]) -> dict[str, Path]:
    """Name -> path, where a file is called after what it holds: ``prompts/fraud.parquet`` is of ``fraud``."""
    return {Path(path).stem: Path(path) for path in paths}
