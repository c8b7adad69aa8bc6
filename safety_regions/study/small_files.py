"""Read the small JSON files of a checkpoint or an adapter, and say what is wrong with one. Torch-free."""

import json
from pathlib import Path

from safety_regions.errors import StudyError, explain

POINTER = b"version https://git-lfs.github.com/"
"""The first bytes of a pointer of Git LFS, which stands in place of a large file."""

AN_OBJECT = "a JSON object, as transformers and peft write it"


def fault_of(path: Path) -> str | None:
    """What is wrong with a file that should hold a JSON object; None if nothing is."""
    try:
        data = path.read_bytes()
        if data.startswith(b"\xef\xbb\xbf"):
            return f"{path.name} with a byte-order mark before the JSON"
        if not data.strip():
            return f"{path.name} that is empty"
        value = json.loads(data.decode())
    except OSError as error:
        return f"{path.name} that cannot be read ({error.strerror})"
    except UnicodeDecodeError:
        return f"{path.name} that is not UTF-8"
    except json.JSONDecodeError as error:
        return f"{path.name} with broken JSON in line {error.lineno}"
    return None if isinstance(value, dict) else f"{path.name} that holds no JSON object"


def read_object(path: Path) -> dict:
    """The object in a JSON file.

    Raises:
        StudyError: the file cannot be read, or holds something else.
    """
    fault = fault_of(path)
    if fault:
        raise StudyError(explain(path.parent, fault, AN_OBJECT, "a fresh copy of the file"))
    return json.loads(path.read_text(encoding="utf-8"))
