"""Read a split of a Hugging Face Hub dataset as rows, with a clear error for each way this can fail."""

import re
from pathlib import Path
from typing import Any

from safety_regions.errors import StudyError, explain
from safety_regions.model.hub import COMMIT, Place, Trouble, commit_of, from_hub
from safety_regions.prompts.rows import Rows

_PAGE = "https://huggingface.co/datasets/{repo}"


def read_hub(where: str, source: dict, columns: list[str]) -> tuple[Rows, str]:
    """Read the rows of one split, and return them with their commit.

    Args:
        where: the source, as error messages name it.
        source: the ``hub`` part of a card: repo, split, optionally config and revision (default: ``main``).
        columns: the columns to load; others, such as conversations or embeddings, are not read.

    Raises:
        StudyError: the dataset is gated or missing; config, split or revision is unknown; there is no connection; the
            dataset has a loading script; or the cached copy is not of the requested commit.
    """
    place = Place(where, source["repo"], source.get("revision", "main"), "dataset")
    commit = commit_of(place)
    data = _load(place, source, commit)
    # Without a connection the library returns any cached copy, whatever revision was requested.
    found = _commit_of(data)
    if found not in (commit, None):
        raise StudyError(
            explain(where, f"a cached copy of commit {found}", f"commit {commit}", "run again when online")
        )
    if any(column not in data.column_names for column in columns):
        return Rows(data.column_names, []), commit
    return Rows(data.column_names, data.select_columns(columns).to_list()), commit


def _load(place: Place, source: dict, commit: str) -> Any:
    from datasets import load_dataset

    names = {"config": source.get("config"), "split": source["split"]}
    try:
        return from_hub(
            place,
            lambda: load_dataset(place.repo, names["config"], split=names["split"], revision=commit),
            _troubles(),
            **names,
        )
    except StudyError:
        raise
    except Exception as error:  # its message may quote a row
        found = f"a dataset that cannot be loaded ({type(error).__name__})"
        hint = "call load_dataset in a Python shell to see the full error"
        raise StudyError(explain(f"{place.where}, commit {commit}", found, hint=hint)) from None


def _troubles() -> tuple[Trouble, ...]:
    """The ways in which loading a dataset fails; `datasets` reports most of them by message, not by exception class."""
    from datasets.data_files import EmptyDatasetError
    from datasets.exceptions import DataFilesNotFoundError

    return (
        Trouble(
            (r"scripts are no longer supported",),
            "a dataset with a loading script, whose code is never run",
            f"a revision with data files (`refs/convert/parquet`, if it exists at {_PAGE})",
        ),
        Trouble(
            (r"BuilderConfig '.*' not found|^Config name is missing",),
            "no config '{config}'",
            f"a `config` listed at {_PAGE}",
        ),
        Trouble((r"^Unknown split|^Bad split",), "no split '{split}'", f"a `split` listed at {_PAGE}"),
        Trouble(
            (DataFilesNotFoundError, EmptyDatasetError),
            "no data files",
            f"a revision of {_PAGE} that has data files",
        ),
    )


def _commit_of(data: Any) -> str | None:
    """The commit in the name of the cache folder; None if the library has no such folder."""
    folders = {Path(file["filename"]).parent.name for file in data.cache_files}
    commits = [folder for folder in folders if re.fullmatch(COMMIT, folder)]
    return commits[0] if len(commits) == 1 else None
