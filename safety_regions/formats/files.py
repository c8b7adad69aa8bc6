"""Write files atomically: a file appears under its name only when it is complete."""

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from safety_regions.errors import StudyError, explain

FULL = (errno.ENOSPC, errno.EDQUOT)
# Remedy for any file that is damaged or has another version: every file can be made again.
REMEDY = "delete the file and run snakemake again"
FRAME = ".frame"  # ends the name of a folder that one job writes


def frame_files(frame: str | Path, names: Iterable[str], ending: str) -> dict[str, Path]:
    """Name -> file, for names in a frame: a folder with what one dataset's scores or region are compared with."""
    return {name: Path(frame) / f"{name}{ending}" for name in names}


def named_files(names: Sequence[str], paths: Sequence[str | Path], ending: str) -> dict[str, Path]:
    """Name -> file, where each path is that of the file or of the frame that holds it."""
    found = {}
    for name, path in zip(names, map(Path, paths), strict=True):
        found |= frame_files(path, [name], ending) if path.suffix == FRAME else {name: path}
    return found


def remedy(path: str | Path) -> str:
    """What to do about a damaged file that a job wrote: the job runs again if what it wrote is gone."""
    folder = Path(path).parent.name
    return f"delete the folder {folder} and run snakemake again" if folder.endswith(FRAME) else REMEDY


@contextmanager
def finished_at(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; it is renamed to ``path`` if the block ends without an error.

    Raises:
        StudyError: the disk is full; the temporary file is removed.
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
        hint = "free some space and run snakemake again; finished files are kept"
        raise StudyError(explain(path, os.strerror(error.errno), "enough space to write it", hint)) from None
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def finished_in(directory: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``directory``; its files are moved there if the block ends without an error."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{directory.name}.", suffix=".part", dir=directory.parent) as temporary:
        yield Path(temporary)
        directory.mkdir(exist_ok=True)
        for file in sorted(Path(temporary).iterdir()):
            os.replace(file, directory / file.name)


def by_stem(paths: Iterable[str | Path]) -> dict[str, Path]:
    """Name -> path, with the file's stem as the name: ``prompts/fraud.parquet`` has the name ``fraud``."""
    return {Path(path).stem: Path(path) for path in paths}
