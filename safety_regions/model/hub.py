"""The Hugging Face Hub as one door: what is fetched from it, patience while it is busy, a sentence per failure.

Files are fetched by `huggingface_hub` alone, and transformers is then given a folder: what does not arrive is an
error here, where transformers would do without it (a generation_config.json, and with it the ends of a turn).
"""

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from safety_regions.errors import StudyError, explain

COMMIT = r"[0-9a-f]{40}"
WAITS = (
    2,
    15,
    60,
)  # seconds before each further try; the library's own tries, where it makes any, are quicker

# Of a checkpoint, everything but its weights: config, tokenizer, chat template, index of the weights. No code.
_SMALL_FILES = ("*.json", "*.jinja", "*.txt", "*.model")
_INDEX = "model.safetensors.index.json"
_PAGES = {"model": "https://huggingface.co/{repo}", "dataset": "https://huggingface.co/datasets/{repo}"}
_COPIES = {"model": "`path` in the card", "dataset": "`data_dir` in the config, `file` in the card"}
_LOG_IN = "log in with `hf auth login`"
_AGAIN = "again later: what has arrived is kept"
_BUSY = r"http (408|429|5\d\d)|RemoteProtocolError|ReadError|ReadTimeout|Consistency check failed"

Trouble = tuple[str, str, str]  # a sign (regular expression), what was found, what to try
# A sign is looked for in the types, HTTP states and messages of the exception and its causes; the first that
# is found wins. The messages themselves are not shown, for they may quote a row of a set.
_TROUBLES: tuple[Trouble, ...] = (
    (
        r"No space left on device|Disk quota exceeded",
        "no room for it in the cache (HF_HOME)",
        "free some space there (`hf cache prune` removes parts of broken downloads), or HF_HOME on a larger disk",
    ),
    (
        r"GatedRepo|gated dataset|http 403",
        "a gated or private {kind}, and no right to read it",
        f"accept its terms at {{page}} and {_LOG_IN}, with a token that may read it; or a local copy: {{copy}}",
    ),
    (
        r"RevisionNotFound|Revision '",
        "no revision '{revision}'",
        "a branch, tag or commit listed at {page}/commits/main",
    ),
    (
        r"OfflineMode",
        "no complete copy in the local cache, and HF_HUB_OFFLINE set",
        "HF_HUB_OFFLINE=0; or run once where there is a connection, with the same HF_HOME; or a local copy: {copy}",
    ),
    (r"HFValidationError", "'{repo}', which cannot be the id of a {kind}", "owner/name as the Hub spells it"),
    (
        r"RepositoryNotFound|http 404|DatasetNotFound",
        "no such {kind}, or one that needs a log-in",
        f"the id as the Hub spells it; if the {{kind}} is private, {_LOG_IN}",
    ),
    (r"http 401", "a token that the Hub does not accept", f"{_LOG_IN} again, or unset HF_TOKEN"),
    (r"http 429", "too many requests for the Hub, {tries} tries in a row", f"{_AGAIN}; {_LOG_IN} for more"),
    (r"http 5\d\d", "the Hub out of order, {tries} tries in a row", _AGAIN),
    (
        r"Connect\w*Error|Timeout|ReadError|ProtocolError|ProxyError|Couldn't reach|LocalEntryNotFound|FileMetadata"
        r"|Consistency check failed",
        "no answer from the Hub, or one that broke off",
        f"{_AGAIN}; on a machine without a connection, a local copy: {{copy}}",
    ),
)
_Loaded = TypeVar("_Loaded")


class Place(NamedTuple):
    """A repository of the Hub: how errors name its user, its id, the revision asked for, model or dataset."""

    where: str
    repo: str
    revision: str
    kind: str


def from_hub(
    place: Place, load: Callable[[], _Loaded], troubles: Sequence[Trouble] = (), **words: object
) -> _Loaded:
    """What ``load()`` gives, tried again (after `WAITS`) where the Hub is busy or the connection broke off.

    Args:
        place: the repository that ``load`` reads.
        load: fetches from the Hub; what it got already, it does not fetch again.
        troubles: further signs, looked for before the Hub's own.
        words: what the texts of these troubles name in braces.

    Raises:
        StudyError: a trouble of the table above (gated, missing, offline, busy, ...). Other errors pass.
    """
    for tries, wait in enumerate((*WAITS, None), start=1):
        try:
            return load()
        except Exception as error:
            signs = " ".join(_signs(error))
            if wait is None or not re.search(_BUSY, signs):
                problem = _sentence(place, signs, (*troubles, *_TROUBLES), {**words, "tries": tries})
                if problem is None:
                    raise
                raise StudyError(problem) from None
        time.sleep(wait)
    raise AssertionError("the last try returns or raises")


def commit_of(place: Place) -> str:
    """The commit (40 hexadecimal digits) that the place's revision stands for; offline, by the local cache."""
    if re.fullmatch(COMMIT, place.revision):
        return place.revision
    return from_hub(place, lambda: _snapshot(place, ["README.md"])).name


def fetch_checkpoint(place: Place, accept: Callable[[Path], None]) -> Path:
    """The folder of a checkpoint, named after its commit: config, tokenizer and safetensors weights.

    Processes that fetch the same repository at once download each file once. Pickled weights and code stay
    where they are.

    Args:
        place: the repository.
        accept: called with the folder before the weights are fetched; raises if they are not wanted.

    Raises:
        StudyError: as `from_hub`, and what ``accept`` raises.
    """
    folder = from_hub(place, lambda: _snapshot(place, _SMALL_FILES))
    accept(folder)
    pinned = place._replace(revision=folder.name)
    from_hub(place, lambda: _snapshot(pinned, weight_files(folder)))
    return folder


def weight_files(folder: Path) -> list[str]:
    """The names of the files that hold a checkpoint's weights, by its index where it has one."""
    if not (folder / _INDEX).is_file():
        return ["model.safetensors"]
    return sorted(set(json.loads((folder / _INDEX).read_text(encoding="utf-8"))["weight_map"].values()))


def _snapshot(place: Place, patterns: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download

    options = {"allow_patterns": list(patterns), "ignore_patterns": ["*/*"]}
    return Path(snapshot_download(place.repo, repo_type=place.kind, revision=place.revision, **options))


def _sentence(place: Place, signs: str, troubles: Sequence[Trouble], words: dict) -> str | None:
    words = {
        **words,
        **place._asdict(),
        "page": _PAGES[place.kind].format(repo=place.repo),
        "copy": _COPIES[place.kind],
    }
    for sign, found, hint in troubles:
        if re.search(sign, signs):
            status = re.search(r"http (\d+)", signs)
            shown = f"{found} (http {status[1]})" if status else found
            where = f"{place.where}, revision {place.revision}"
            return explain(where, shown.format(**words), hint=hint.format(**words))
    return None


def _signs(error: BaseException | None) -> Iterator[str]:
    while error is not None:
        yield f"{type(error).__name__} {error}"
        yield f"http {getattr(getattr(error, 'response', None), 'status_code', '-')}"
        error = error.__cause__ or error.__context__
