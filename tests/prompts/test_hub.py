"""With a stand-in for `datasets.load_dataset`, sources on the Hub must be requested, read and refused correctly.

tests/model/hub tests the real libraries against a local Hub.
"""

from pathlib import Path

import datasets
import httpx2
import pytest
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

from safety_regions.model import hub
from tests.prompts.cards import SECRET, by_id, card, message_of, read

TOKEN = "hf_abcdef"
COMMIT = "0" * 39 + "a"
ROWS = [
    {"ask": "one", "class": {"a": True, "b": False, "c": True}, "safe": False, "talk": [SECRET]},
    {"ask": "two", "class": {"a": False, "b": False, "c": False}, "safe": True, "talk": [SECRET]},
    {"ask": "ONE ", "class": {"a": False, "b": True, "c": False}, "safe": False, "talk": [SECRET]},
    {"ask": "three", "class": {"a": False, "b": True, "c": False}, "safe": False, "talk": [SECRET]},
]


def hub_card(**hub) -> dict:
    return card(
        hub={"repo": "nest/birds", "split": "train", **hub},
        columns={"prompt": "ask", "category": "class"},
        filter={"keep": {"safe": [False]}, "distinct": "exact"},
    )


@pytest.fixture
def serve(monkeypatch):
    """Return a function that sets the Hub's answer (rows, or an exception) and returns the list of later calls.

    Every revision that is not a commit resolves to `COMMIT`.
    """
    monkeypatch.setattr(hub, "_snapshot", lambda place, patterns: Path("snapshots") / COMMIT)
    monkeypatch.setattr(hub, "WAITS", (0, 0))

    def serve(answer):
        calls = []

        def load_dataset(*arguments, **options):
            calls.append((arguments, options))
            if isinstance(answer, BaseException):
                raise answer
            return datasets.Dataset.from_list(answer) if isinstance(answer, list) else answer

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        return calls

    return serve


def test_columns_filters_and_flags(serve):
    serve(ROWS)
    table, metadata = read(hub_card(rows=2), None)
    assert {key: (row["text"], row["category"]) for key, row in by_id(table).items()} == {
        "000000": ("one", "a, c"),
        "000003": ("three", "b"),
    }
    assert metadata["removed"] == {"keep safe": 1, "distinct exact": 1}
    assert metadata["source"] == {
        "kind": "hub", "repo": "nest/birds", "config": None, "split": "train",
        "revision": "main", "commit": COMMIT,
    }  # fmt: skip


def test_the_library_is_asked_for_the_data_of_one_commit(serve):
    calls = serve(ROWS)
    read(hub_card(config="small", revision="v2"), None)
    assert calls == [(("nest/birds", "small"), {"split": "train", "revision": COMMIT})]


def test_the_hub_copy_can_have_its_own_columns_and_filter(serve):
    serve([{"text": "one"}, {"text": "two"}])
    table, metadata = read(hub_card(columns={"prompt": "text"}, filter={"distinct": "exact"}), None)
    assert (
        table.num_rows == 2
        and table["category"].null_count == 2
        and metadata["removed"] == {"distinct exact": 0}
    )


def test_missing_column_and_wrong_number_of_rows(serve):
    serve([{SECRET: "one", "class": "a", "safe": False}])
    message = message_of(read, hub_card(), None)
    assert "no column ask" in message and f"({len(SECRET)} characters), class, safe" in message
    serve(ROWS)
    assert (
        "found 2 prompts of 4 rows (keep safe removed 1, distinct exact removed 1); expected 9"
        in message_of(read, hub_card(rows=9), None)
    )


def cached(tmp_path, commit: str) -> datasets.Dataset:
    """Return a dataset as the library caches it: an arrow file in a folder named after its commit."""
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    (tmp_path / "saved").rename(tmp_path / commit)
    return datasets.load_from_disk(tmp_path / commit)


def test_the_commit_is_noted_and_a_pinned_one_insisted_on(serve, tmp_path):
    ours, other = COMMIT, "0" * 39 + "b"
    serve(cached(tmp_path, ours))
    assert read(hub_card(), None)[1]["source"]["commit"] == ours
    assert read(hub_card(revision=ours), None)[1]["source"]["commit"] == ours
    message = message_of(read, hub_card(revision=other), None)
    assert f"found a cached copy of commit {ours}; expected commit {other}" in message


def http(error_type, status: int, message: str = f"no {TOKEN}"):
    request = httpx2.Request("GET", "https://huggingface.co", headers={"authorization": TOKEN})
    return error_type(message, response=httpx2.Response(status, request=request))


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


GATED, MISSING, OFFLINE = "gated or private", "no such dataset", "no response from the Hub"
TOKEN_REFUSED, BUSY, DOWN = (
    "a token that the Hub does not accept",
    "in 3 attempts (http 429)",
    "server error",
)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (DatasetNotFoundError("Dataset 'nest/birds' is a gated dataset on the Hub. You must be ..."), GATED),
        (http(GatedRepoError, 403), GATED),
        (http(HfHubHTTPError, 401), TOKEN_REFUSED),
        (caused(RuntimeError(SECRET), http(HfHubHTTPError, 403)), GATED),
        (
            DatasetNotFoundError("Dataset 'nest/birds' doesn't exist on the Hub or cannot be accessed."),
            MISSING,
        ),
        (http(RepositoryNotFoundError, 401), MISSING),
        (http(HfHubHTTPError, 404), MISSING),
        (DatasetNotFoundError("Revision 'v9' doesn't exist for dataset 'x' on the Hub."), "no revision 'v9'"),
        (ValueError("BuilderConfig 'small' not found. Available: ['big']"), "no config 'small'"),
        (ValueError("Config name is missing."), "no config 'small'"),
        (ValueError('Unknown split "train". Should be one of [...]'), "no split 'train'"),
        (ValueError("Bad split: train. Available splits: []"), "no split 'train'"),
        (ConnectionError("Couldn't reach 'nest/birds' on the Hub (LocalEntryNotFoundError)"), OFFLINE),
        (httpx2.ConnectTimeout("slow"), OFFLINE),
        (http(HfHubHTTPError, 429), BUSY),
        (http(HfHubHTTPError, 503), DOWN),
        (caused(ValueError(f"row {SECRET}"), TypeError(SECRET)), "cannot be loaded (ValueError)"),
    ],
)
def test_failures_are_told_apart_and_keep_tokens_and_rows_to_themselves(serve, error, says):
    serve(error)
    message = message_of(read, hub_card(config="small", revision="v9"), None)
    assert says in message and "Try: " in message and TOKEN not in message
