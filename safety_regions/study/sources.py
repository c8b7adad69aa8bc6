"""The three sources that a dataset card can name, and which of them a study reads.

==========  ======================================================  ===============================
source      location                                                used
==========  ======================================================  ===============================
embedded    ``prompts/`` of the catalog, written for this project   always, if the card has it
file        under the study's ``data_dir``                          if the config sets ``data_dir``
hub         the Hugging Face Hub                                    otherwise
==========  ======================================================  ===============================
"""

from pathlib import Path
from typing import NamedTuple

from safety_regions.errors import StudyError, explain

EMBEDDED_COLUMNS = {"prompt": "text", "category": "category", "id": "id"}


class Source(NamedTuple):
    """One source of a card, with the card's columns and filter filled in; ``where`` names it in errors.

    ``path`` is the file to read, None for the Hub; ``given`` is the card's entry for this source.
    """

    kind: str
    where: str
    path: Path | None
    given: dict
    columns: dict
    filter: dict


def choose_source(name: str, card: dict, data_dir: Path | None, catalog_dir: Path) -> Source:
    """The source of the card that this study reads (table above).

    Raises:
        StudyError: the card has only a local file, and the study has no data_dir.
    """
    folders = {"embedded": catalog_dir / "prompts", "file": data_dir, "hub": None}
    kinds = [kind for kind in folders if kind in card and (kind != "file" or data_dir is not None)]
    where = f"dataset '{name}'"
    if not kinds:
        raise StudyError(
            explain(
                where,
                "a card with only a local file, and a config without `data_dir`",
                "a source that can be read",
                "`data_dir` in the config, or a `hub` source in the card",
            )
        )
    kind, given = kinds[0], card[kinds[0]]
    folder = folders[kind]
    path = folder / given["path"] if folder is not None else None
    columns = given.get("columns", card.get("columns", EMBEDDED_COLUMNS))
    return Source(
        kind,
        f"{where}: {path or given['repo']}",
        path,
        given,
        columns,
        given.get("filter", card.get("filter", {})),
    )
