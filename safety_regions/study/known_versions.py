"""Remember code versions from run to run: computing them takes a second whenever Snakemake starts.

A version is stored with a hash of everything that it can depend on: every Python file and template of the package, the
script, and the modules that it loads by name. After an edit of any of them it is computed again.
"""

import atexit
import hashlib
import json
from contextlib import suppress
from functools import cache
from pathlib import Path

from safety_regions.errors import StudyError
from safety_regions.formats.files import finished_at
from safety_regions.study.code_version import ROOT, code_version

STORE = Path(".snakemake") / "safety_regions_code_versions.json"
SOURCES = ("*.py", "*.j2")


def known_version(script: str | Path, *modules: str) -> str:
    """`code_version` of a script and of modules that it loads by name; computed only after an edit."""
    contents = hashlib.sha256(Path(script).read_bytes()).hexdigest()
    # Not the path: Snakemake copies scripts to a folder that has another name in every run.
    key = " ".join([Path(script).name, contents, *modules])
    versions = _versions()
    if key not in versions:
        versions[key] = code_version(script, *modules)
        _store_at_exit()
    return versions[key]


@cache
def package_hash() -> str:
    """A hash of the names and contents of all files of the package that a code version can depend on."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in SOURCES for path in ROOT.rglob(pattern)):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(ROOT)} {len(content)}\n".encode() + content)
    return digest.hexdigest()


@cache
def _versions() -> dict[str, str]:
    """The stored versions of this state of the package; empty if there are none, or if the file is damaged."""
    try:
        stored = json.loads(STORE.read_text(encoding="utf-8"))
        return dict(stored["versions"]) if stored["package"] == package_hash() else {}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


@cache
def _store_at_exit() -> None:
    atexit.register(_store)


def _store() -> None:
    """Write all versions. If the folder cannot be written, they are computed again next time."""
    stored = {"package": package_hash(), "versions": _versions()}
    with suppress(OSError, StudyError), finished_at(STORE) as temporary:
        temporary.write_text(json.dumps(stored, indent=0), encoding="utf-8")
