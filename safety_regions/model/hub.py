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
# Seconds before each further try; the library's own tries, where it makes any, are quicker.
WAITS = (2, 15, 60)

# Of a checkpoint, everything but its weights: config, tokenizer, chat template, index of the weights. No code.
_SMALL_FILES = ("*.json", "*.jinja", "*.txt", "*.model")
_INDEX = "model.safetensors.index.json"
_PAGES = {"model": "https://huggingface.co/{repo}", "dataset": "https://huggingface.co/datasets/{repo}"}
_COPIES = {"model": "`path` in the card", "dataset": "`data_dir` in the config, `file` in the card"}
_LOG_IN = "log in with `hf auth login`"
_AGAIN = "again later: what has arrived is kept"
# A plain OSError of huggingface_hub, for a file that is shorter than the Hub said.
_TOO_SHORT = r"Consistency check failed"

Sign = type[BaseException] | int | str


class Trouble(NamedTuple):
    """A way in which the Hub fails.

    Attributes:
        signs: each an exception class, an HTTP status, or, for what a library raises without a class of its own,
            a regular expression that its message holds.
        found: what the error says was found.
        hint: what the error says to try.
    """

    signs: tuple[Sign, ...]
    found: str
    hint: str


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
        troubles: further troubles, looked for before the Hub's own.
        words: what the texts of these troubles name in braces.

    Raises:
        StudyError: a trouble of `_hub_troubles` (gated, missing, offline, busy, ...). Other errors pass.
    """
    for tries, wait in enumerate((*WAITS, None), start=1):
        try:
            return load()
        except Exception as error:
            chain = list(_chain(error))
            if wait is None or not _shows(chain, _busy_signs()):
                problem = _sentence(place, chain, (*troubles, *_hub_troubles()), {**words, "tries": tries})
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


def _busy_signs() -> tuple[Sign, ...]:
    """What another try may mend."""
    import httpx2

    broke_off = (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.ReadTimeout)
    return (408, 429, *range(500, 600), *broke_off, _TOO_SHORT)


def _hub_troubles() -> tuple[Trouble, ...]:
    """The Hub's own troubles; of those that an error shows, the first one is told."""
    import httpx2
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub import errors as hub

    silent = (httpx2.NetworkError, httpx2.TimeoutException, httpx2.ProtocolError, httpx2.ProxyError)
    return (
        Trouble(
            (r"No space left on device|Disk quota exceeded",),  # hf_xet gives no error number
            "no room for it in the cache (HF_HOME)",
            "free some space there (`hf cache prune` removes parts of broken downloads), or HF_HOME on a larger "
            "disk",
        ),
        Trouble(
            (hub.GatedRepoError, 403, r"is a gated dataset"),
            "a gated or private {kind}, and no right to read it",
            f"accept its terms at {{page}} and {_LOG_IN}, with a token that may read it; or a local copy: "
            "{copy}",
        ),
        Trouble(
            (hub.RevisionNotFoundError, r"^Revision '.*' doesn't exist"),
            "no revision '{revision}'",
            "a branch, tag or commit listed at {page}/commits/main",
        ),
        Trouble(
            (hub.OfflineModeIsEnabled,),
            "no complete copy in the local cache, and HF_HUB_OFFLINE set",
            "HF_HUB_OFFLINE=0; or run once where there is a connection, with the same HF_HOME; or a local copy: "
            "{copy}",
        ),
        Trouble(
            (hub.HFValidationError,),
            "'{repo}', which cannot be the id of a {kind}",
            "owner/name as the Hub spells it",
        ),
        Trouble(
            (hub.RepositoryNotFoundError, DatasetNotFoundError, 404),
            "no such {kind}, or one that needs a log-in",
            f"the id as the Hub spells it; if the {{kind}} is private, {_LOG_IN}",
        ),
        Trouble((401,), "a token that the Hub does not accept", f"{_LOG_IN} again, or unset HF_TOKEN"),
        Trouble(
            (429,), "too many requests for the Hub, {tries} tries in a row", f"{_AGAIN}; {_LOG_IN} for more"
        ),
        Trouble(tuple(range(500, 600)), "the Hub out of order, {tries} tries in a row", _AGAIN),
        Trouble(
            (
                hub.LocalEntryNotFoundError,
                hub.FileMetadataError,
                ConnectionError,
                TimeoutError,
                *silent,
                _TOO_SHORT,
            ),
            "no answer from the Hub, or one that broke off",
            f"{_AGAIN}; on a machine without a connection, a local copy: {{copy}}",
        ),
    )


def _sentence(
    place: Place, chain: list[BaseException], troubles: Sequence[Trouble], words: dict
) -> str | None:
    """The first trouble that the chain shows, as an error says it; the messages, which may quote a row, are left
    out. None where there is no such trouble."""
    page, copy = _PAGES[place.kind].format(repo=place.repo), _COPIES[place.kind]
    words = {**words, **place._asdict(), "page": page, "copy": copy}
    for trouble in troubles:
        if _shows(chain, trouble.signs):
            status = next(filter(None, map(_status, chain)), None)
            shown = f"{trouble.found} (http {status})" if status else trouble.found
            where = f"{place.where}, revision {place.revision}"
            return explain(where, shown.format(**words), hint=trouble.hint.format(**words))
    return None


def _shows(chain: list[BaseException], signs: Sequence[Sign]) -> bool:
    return any(_shown_by(error, sign) for error in chain for sign in signs)


def _shown_by(error: BaseException, sign: Sign) -> bool:
    if isinstance(sign, str):
        return re.search(sign, str(error)) is not None
    return _status(error) == sign if isinstance(sign, int) else isinstance(error, sign)


def _status(error: BaseException) -> int | None:
    """The HTTP status that the error was made of."""
    return getattr(getattr(error, "response", None), "status_code", None)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what caused it, the latest first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
