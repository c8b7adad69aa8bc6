"""Fetch files from the Hugging Face Hub: retry while it is busy, and explain each failure in one sentence.

Only `huggingface_hub` fetches files, and transformers then gets a folder. A missing file is therefore an error here.
transformers would continue without it, for example without generation_config.json, which lists the end-of-turn tokens.
"""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from safety_regions.errors import StudyError, explain
from safety_regions.study.checkpoints import weight_files

COMMIT = r"[0-9a-f]{40}"
# Seconds to wait before each retry; the library's own retries, if any, are faster.
WAITS = (2, 15, 60)

# All files of a checkpoint except weights and code: config, tokenizer, chat template, index of the weights.
_SMALL_FILES = ("*.json", "*.jinja", "*.txt", "*.model")
_PAGES = {"model": "https://huggingface.co/{repo}", "dataset": "https://huggingface.co/datasets/{repo}"}
_COPIES = {"model": "`path` in the card", "dataset": "`data_dir` in the config, `file` in the card"}
_LOG_IN = "log in with `hf auth login`"
_AGAIN = "run again later; files that are complete are kept"
# Message of a plain OSError of huggingface_hub, for a file that is shorter than announced.
_TOO_SHORT = r"Consistency check failed"

Sign = type[BaseException] | int | str


class Trouble(NamedTuple):
    """A kind of failure of the Hub.

    Attributes:
        signs: how to recognise it: exception classes, HTTP statuses or, for errors without a class of their own,
            regular expressions that match the message.
        found: what the error message says was found.
        hint: what the error message suggests to try.
    """

    signs: tuple[Sign, ...]
    found: str
    hint: str


_Loaded = TypeVar("_Loaded")


class Place(NamedTuple):
    """A repository on the Hub: name for error messages, id, requested revision, and kind (model or dataset)."""

    where: str
    repo: str
    revision: str
    kind: str


def from_hub(
    place: Place, load: Callable[[], _Loaded], troubles: Sequence[Trouble] = (), **words: object
) -> _Loaded:
    """Return ``load()``; retry (after `WAITS` seconds) if the Hub is busy or the connection was interrupted.

    Args:
        place: the repository that ``load`` reads.
        load: fetches from the Hub; must not fetch again what is already complete.
        troubles: additional kinds of failure, checked before those in `_hub_troubles`.
        words: values for the names in braces in the texts of ``troubles``.

    Raises:
        StudyError: a failure listed in `_hub_troubles` (gated, missing, offline, busy, ...) or in ``troubles``. Other
            errors propagate.
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
    """The commit (40 hexadecimal digits) of the place's revision; offline, the one in the local cache."""
    if re.fullmatch(COMMIT, place.revision):
        return place.revision
    return from_hub(place, lambda: _snapshot(place, ["README.md"])).name


def fetch_checkpoint(place: Place, accept: Callable[[Path], None]) -> Path:
    """Fetch config, tokenizer and safetensors weights of a checkpoint into a folder named after its commit.

    Processes that fetch the same repository at the same time download each file only once. Pickled weights and code
    are not downloaded.

    Args:
        place: the repository.
        accept: called with the folder before the weights are fetched; raises an error to stop.

    Raises:
        StudyError: see `from_hub`; also any error from ``accept``.
    """
    folder = fetch_small_files(place)
    accept(folder)
    pinned = place._replace(revision=folder.name)
    from_hub(place, lambda: _snapshot(pinned, weight_files(folder)))
    return folder


def fetch_small_files(place: Place) -> Path:
    """Fetch all files of a checkpoint except weights and code; return their folder, named after the commit.

    Raises:
        StudyError: see `from_hub`.
    """
    return from_hub(place, lambda: _snapshot(place, _SMALL_FILES))


def fetch_file(place: Place, name: str) -> Path:
    """Fetch one file of a repository.

    Raises:
        StudyError: see `from_hub`; also a file that the repository does not have.
    """
    from huggingface_hub import errors, hf_hub_download

    missing = Trouble(
        (errors.RemoteEntryNotFoundError,),
        "no file '{file}'",
        "a name that is listed at {page}/tree/main",
    )
    return Path(
        from_hub(
            place,
            lambda: hf_hub_download(place.repo, name, repo_type=place.kind, revision=place.revision),
            [missing],
            file=name,
        )
    )


def _snapshot(place: Place, patterns: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download

    options = {"allow_patterns": list(patterns), "ignore_patterns": ["*/*"]}
    return Path(snapshot_download(place.repo, repo_type=place.kind, revision=place.revision, **options))


def _busy_signs() -> tuple[Sign, ...]:
    """Failures that may disappear after a retry."""
    import httpx2

    broke_off = (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.ReadTimeout)
    return (408, 429, *range(500, 600), *broke_off, _TOO_SHORT)


def _hub_troubles() -> tuple[Trouble, ...]:
    """Kinds of failure of the Hub; the first one that matches an error is reported."""
    import httpx2
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub import errors as hub

    silent = (httpx2.NetworkError, httpx2.TimeoutException, httpx2.ProtocolError, httpx2.ProxyError)
    return (
        Trouble(
            (r"No space left on device|Disk quota exceeded",),  # hf_xet gives no error number
            "no room in the cache (HF_HOME)",
            "free some space there (`hf cache prune` removes incomplete downloads), or set HF_HOME to a larger "
            "disk",
        ),
        Trouble(
            (hub.GatedRepoError, 403, r"is a gated dataset"),
            "a gated or private {kind} that you have no permission to read",
            f"accept its terms at {{page}} and {_LOG_IN}, with a token that has read access; or use a local copy: "
            "{copy}",
        ),
        Trouble(
            (hub.RevisionNotFoundError, r"^Revision '.*' doesn't exist"),
            "no revision '{revision}'",
            "a branch, tag or commit listed at {page}/commits/main",
        ),
        Trouble(
            (hub.OfflineModeIsEnabled,),
            "no complete copy in the local cache, while HF_HUB_OFFLINE is set",
            "HF_HUB_OFFLINE=0; or run once with a connection and the same HF_HOME; or use a local copy: "
            "{copy}",
        ),
        Trouble(
            (hub.HFValidationError,),
            "'{repo}', which is not a valid id of a {kind}",
            "owner/name, spelt as on the Hub",
        ),
        Trouble(
            (hub.RepositoryNotFoundError, DatasetNotFoundError, 404),
            "no such {kind}, or one that requires a login",
            f"the id, spelt as on the Hub; if the {{kind}} is private, {_LOG_IN}",
        ),
        Trouble((401,), "a token that the Hub does not accept", f"{_LOG_IN} again, or unset HF_TOKEN"),
        Trouble(
            (429,),
            "too many requests to the Hub in {tries} attempts",
            f"{_AGAIN}; {_LOG_IN} for a higher limit",
        ),
        Trouble(tuple(range(500, 600)), "a server error of the Hub in {tries} attempts", _AGAIN),
        Trouble(
            (
                hub.LocalEntryNotFoundError,
                hub.FileMetadataError,
                ConnectionError,
                TimeoutError,
                *silent,
                _TOO_SHORT,
            ),
            "no response from the Hub, or an interrupted one",
            f"{_AGAIN}; on a machine without a connection, use a local copy: {{copy}}",
        ),
    )


def _sentence(
    place: Place, chain: list[BaseException], troubles: Sequence[Trouble], words: dict
) -> str | None:
    """The error message for the first trouble that matches the chain, or None if none matches.

    The messages of the original errors are left out, because they may quote a row of data.
    """
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
    """The HTTP status of the response that caused the error, or None."""
    return getattr(getattr(error, "response", None), "status_code", None)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and its causes, latest first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
