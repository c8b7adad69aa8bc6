"""Refuse files whose first bytes show that they are not data: Git LFS pointers, compressed files, web pages, parquet.

Such a file can be decoded by some encodings and split into lines, so a card of format `text` would read it as prompts.
"""

from pathlib import Path

from safety_regions.errors import StudyError, explain
from safety_regions.study.small_files import POINTER

PARQUET = (b"par1",)
DISGUISES: dict[tuple[bytes, ...], tuple[str, str]] = {
    (POINTER,): (
        "a Git LFS pointer instead of the data",
        "`git lfs pull` in its repository",
    ),
    (b"\x1f\x8b",): ("a file compressed with gzip", "the unpacked file (gunzip)"),
    tuple(b"bzh%d1ay&sy" % n for n in range(1, 10)): (
        "a file compressed with bzip2",
        "the unpacked file (bunzip2)",
    ),
    (b"\xfd7zxz\x00",): ("a file compressed with xz", "the unpacked file (unxz)"),
    (b"\x28\xb5\x2f\xfd",): ("a file compressed with zstd", "the unpacked file (unzstd)"),
    (b"pk\x03\x04",): (
        "a zip archive or an Excel workbook",
        "the unpacked file, or the sheet exported as CSV",
    ),
    (b"<!doctype html",): ("a web page instead of the data", "the link to the raw file"),
    PARQUET: ("a parquet file", "`format: parquet` in the card"),
}
"""First bytes, letters in lower case -> what the file is, and what to try."""


def refuse_disguise(path: Path, format: str) -> None:
    """Do nothing for a file that may be data of this format.

    Raises:
        StudyError: the first bytes of the file belong to another kind of file.
    """
    with open(path, "rb") as file:
        head = file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip(b" \r\n").lower()
    for starts, (found, hint) in DISGUISES.items():
        if head.startswith(starts) and not (starts == PARQUET and format == "parquet"):
            raise StudyError(explain(path, found, f"a file of format {format}", hint))
