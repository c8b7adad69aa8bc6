"""A split of a Hugging Face Hub dataset as rows, and one clear sentence for each way that fails."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safety_regions.errors import StudyError, explain
from safety_regions.prompts.formats import Rows

COMMIT = r"[0-9a-f]{40}"

_PAGE = "https://huggingface.co/datasets/{repo}"
_OR_LOCAL = "; or a local copy: set `data_dir` and give the card a `file`"
_FORBIDDEN = (
    "a gated or private dataset, and no right to read it",
    f"accept its terms at {_PAGE} and log in with `hf auth login`{_OR_LOCAL}",
)
# A sign is looked for in the types, HTTP states and messages of the exception and its causes; the first that
# is found wins. The messages themselves are not shown, for they may quote a row of the set.
_TROUBLES = (
    (r"GatedRepo|gated dataset", *_FORBIDDEN),
    (r"RevisionNotFound|Revision '", "no revision '{revision}'", f"a commit listed at {_PAGE}/commits/main"),
    (r"BuilderConfig|Config name", "no config '{config}'", f"a config listed at {_PAGE}"),
    (r"Unknown split|Bad split", "no split '{split}'", f"a split listed at {_PAGE}"),
    (
        r"http 404|DatasetNotFound|RepositoryNotFound|DataFilesNotFound|EmptyDataset",
        "no such dataset, or one that needs a log-in",
        "the right `hub: repo` in the card; if the dataset is private, log in with `hf auth login`",
    ),
    (r"http 40[13]", *_FORBIDDEN),
    (
        r"Connect\w*Error|Timeout|OfflineMode|Couldn't reach|LocalEntryNotFound|http (429|5\d\d)",
        "no answer from the Hub",
        f"again when online, with HF_HUB_OFFLINE unset{_OR_LOCAL}",
    ),
    (r"", "a dataset that cannot be loaded ({kind})", "load_dataset in a Python shell shows the whole error"),
)


def read_hub(where: str, source: dict, columns: list[str]) -> tuple[Rows, str | None]:
    """The rows of one split, and the commit they were taken from where it can be told.

    Args:
        where: how errors name the place.
        source: the ``hub`` part of a card: repo, split, optionally config and revision (``main``).
        columns: the columns to fetch; conversations, embeddings and the like stay unread.

    Raises:
        StudyError: gated, missing, unknown config / split / revision, no connection, a column that is not
            there, or a cached copy of another commit than the one pinned.
    """
    from datasets import load_dataset

    revision = source.get("revision", "main")
    try:
        data = load_dataset(source["repo"], source.get("config"), split=source["split"], revision=revision)
    except Exception as error:
        raise StudyError(_trouble(where, source, error)) from None
    commit = _commit_of(data)
    # Without a connection the library serves any cached copy, whatever the revision asked for.
    if re.fullmatch(COMMIT, revision) and commit not in (revision, None):
        raise StudyError(
            explain(where, f"a cached copy of commit {commit}", f"commit {revision}", "again when online")
        )
    missing = [column for column in columns if column not in data.column_names]
    if missing:
        return Rows(data.column_names, []), commit
    return Rows(data.column_names, data.select_columns(columns).to_list()), commit


def _commit_of(data: Any) -> str | None:
    """The commit in the name of the cache folder; None where the library keeps no such folder."""
    folders = {Path(file["filename"]).parent.name for file in data.cache_files}
    commits = [folder for folder in folders if re.fullmatch(COMMIT, folder)]
    return commits[0] if len(commits) == 1 else None


def _trouble(where: str, source: dict, error: BaseException) -> str:
    signs = " ".join(_signs(error))
    found, hint = next((found, hint) for sign, found, hint in _TROUBLES if re.search(sign, signs))
    words = {"revision": "main", "config": None, **source, "kind": type(error).__name__}
    return explain(where, found.format(**words), hint=hint.format(**words))


def _signs(error: BaseException | None) -> Iterator[str]:
    while error is not None:
        yield f"{type(error).__name__} {error}"
        yield f"http {getattr(getattr(error, 'response', None), 'status_code', '-')}"
        error = error.__cause__ or error.__context__
