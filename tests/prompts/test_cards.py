"""The cards of the catalog must be valid, and must describe their files correctly where those are available."""

import re
from itertools import combinations

import jsonschema
import pytest
import yaml

from safety_regions.prompts.reading import read_prompts
from safety_regions.prompts.sharing import shared_prompts
from safety_regions.study.catalog import Shelf
from safety_regions.units.names import parse_name
from tests.paths import ROOT
from tests.prompts.cards import card, near_duplicates_within

DATA = ROOT / yaml.safe_load((ROOT / "config/real-data.yaml").read_text(encoding="utf-8"))["data_dir"]
SCHEMA = yaml.safe_load(
    (ROOT / "safety_regions/study/schemas/dataset.schema.yaml").read_text(encoding="utf-8")
)
SHELF = Shelf("datasets", {})
CARDS = {name: SHELF.read(name) for name in SHELF.names}
TEN = ["advbench", "harmbench", "malicious-instruct", "strongreject", "do-not-answer", "catqa", "harmfulqa",
       "simple-safety-tests", "forbidden-questions", "beavertails"]  # fmt: skip
validator = jsonschema.Draft202012Validator(SCHEMA)
needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason="the data_dir of config/real-data.yaml does not exist"
)


def read(name: str, **changes):
    found, _ = read_prompts(
        name,
        CARDS[name] | changes,
        data_dir=DATA,
        catalog_dir=ROOT / "safety_regions/catalog",
        seed=0,
        evaluate_fraction=0.2,
    )
    return found


@pytest.fixture(scope="module")
def ten():
    return {name: read(name) for name in TEN}


def test_the_schema_is_one_and_explains_every_field():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)

    def fields(node):
        if isinstance(node, dict):
            yield from node.get("properties", {}).items()
            for child in [*node.get("properties", {}).values(), *node.get("$defs", {}).values()]:
                yield from fields(child)

    found = list(fields(SCHEMA))
    assert len(found) > 30
    assert [name for name, field in found if not field.get("description", "").endswith(".")] == []


@pytest.mark.parametrize("name", CARDS)
def test_cards_fit_the_schema_and_the_grammar_of_names(name):
    assert [error.json_path for error in validator.iter_errors(CARDS[name])] == []
    assert parse_name(name).datasets == (name,)


@pytest.mark.parametrize("name", [name for name, found in CARDS.items() if "hub" in found])
def test_a_hub_source_is_pinned_or_said_to_be_unchecked(name):
    """A card must name a commit, because a branch may change, or say that its rows have not been checked."""
    pinned = re.fullmatch(r"[0-9a-f]{40}", CARDS[name]["hub"]["revision"]) is not None
    assert pinned != ("not checked against the live Hub" in CARDS[name]["note"])


FILE = {"path": "a.csv", "format": "csv"}


@pytest.mark.parametrize(
    "wrong",
    [
        card(),
        card(file=FILE, columns={"prompts": "q"}),
        card(file=FILE, columns={"prompt": "q"}, colour="red"),
        card(file=FILE, columns={"prompt": "q"}, role="safety"),
        card(file=FILE | {"format": "xml"}, columns={"prompt": "q"}),
        card(file=FILE | {"rows": 0}, columns={"prompt": "q"}),
        card(embedded={"path": "/etc/hosts"}),
        card(file=FILE | {"format": "nested-json"}, columns={"prompt": "q"}),
        card(file=FILE | {"format": "json", "header": ["q"]}, columns={"prompt": "q"}),
        card(file=FILE | {"format": "json", "delimiter": ";"}, columns={"prompt": "q"}),
        card(file=FILE | {"delimiter": ";;"}, columns={"prompt": "q"}),
        card(file=FILE, columns={"prompt": "q"}, filter={"distinct": True}),
        card(file=FILE, columns={"prompt": "q"}, filter={"keep": {"kind": "a"}}),
        card(
            file=FILE, columns={"prompt": "q"}, filter={"drop_matching": {"columns": ["q"], "phrases": [" "]}}
        ),
        card(hub={"repo": "nest/birds"}, columns={"prompt": "q"}),
        card(hub={"repo": "birds", "split": "train"}, columns={"prompt": "q"}),
        card(
            hub={"repo": "nest/birds", "split": "train", "trust_remote_code": True}, columns={"prompt": "q"}
        ),
    ],
)
def test_mistakes_in_a_card_are_refused(wrong):
    assert list(validator.iter_errors(wrong))


@pytest.mark.parametrize("name", [name for name, found in CARDS.items() if "embedded" in found])
def test_embedded_sets_read_as_their_cards_say(name):
    table = read(name)
    assert table.num_rows == CARDS[name]["embedded"]["rows"]
    assert table["category"].null_count == 0


@needs_data
@pytest.mark.parametrize("name", [name for name, found in CARDS.items() if "file" in found])
def test_real_sets_read_as_their_cards_say(name):
    table = read(name)
    assert table.num_rows == CARDS[name]["file"]["rows"]
    assert len(set(table["prompt_id"].to_pylist())) == table.num_rows
    assert ("category" in str(CARDS[name].get("columns")) + str(CARDS[name]["file"])) == (
        table["category"].null_count == 0
    )


@needs_data
def test_rows_of_the_ten_are_those_published(ten):
    published = [
        520,
        200,
        100,
        221,
        938,
        543,
        None,
        100,
        270,
        140,
    ]  # None: HarmfulQA is read without near-duplicates, see below
    found = [None if name == "harmfulqa" else ten[name].num_rows for name in TEN]
    assert found == published
    assert near_duplicates_within(ten["harmfulqa"]) == 0


@needs_data
@pytest.mark.parametrize(("whole", "prefix", "n_parts"), [("harmfulqa", "hqa-", 10), ("catqa", "catqa-", 11)])
def test_the_categories_of_a_set_are_all_of_it(whole, prefix, n_parts):
    """Together they have every prompt of the set, and those that are repeated in another category."""
    parts = [name for name in CARDS if name.startswith(prefix)]
    found = [text for name in parts for text in read(name)["text"].to_pylist()]
    texts = read(whole)["text"].to_pylist()
    assert len(parts) == n_parts and set(found) >= set(texts)
    assert 0 <= len(found) - len(texts) < 0.05 * len(texts)


@pytest.mark.slow
@needs_data
def test_the_ten_share_the_five_near_prompts_measured_before(ten):
    near = {(row["a"], row["b"]): row["n_near"] for row in shared_prompts(ten).to_pylist()}
    exact = sum(row["n_exact"] for row in shared_prompts(ten).to_pylist())
    assert list(near) == list(combinations(sorted(TEN), 2)) and exact == 0
    assert {pair: count for pair, count in near.items() if count} == {
        ("advbench", "strongreject"): 1,
        ("harmfulqa", "malicious-instruct"): 1,
        ("do-not-answer", "forbidden-questions"): 3,
    }


@pytest.mark.slow
@needs_data
def test_overlaps_before_the_filters_are_those_measured_before():
    """Counts must equal the measured ones; if near ignored punctuation, HarmfulQA would have 350 instead of 323."""
    names = [
        "advbench",
        "do-not-answer",
        "forbidden-questions",
        "harmfulqa",
        "jailbreakbench",
        "strongreject",
    ]
    whole = {}
    for name in names:
        file = {key: value for key, value in CARDS[name]["file"].items() if key not in ("rows", "filter")}
        whole[name] = read(name, filter={}, file=file)
    rows = {(row["a"], row["b"]): row for row in shared_prompts(whole).to_pylist()}
    measured = {
        ("forbidden-questions", "strongreject"): (34, 34),
        ("advbench", "strongreject"): (25, 26),
        ("jailbreakbench", "strongreject"): (3, 3),
        ("do-not-answer", "strongreject"): (0, 1),
    }
    assert {pair: (rows[pair]["n_exact"], rows[pair]["n_near"]) for pair in measured} == measured
    assert near_duplicates_within(whole["harmfulqa"]) == 323
    assert near_duplicates_within(whole["do-not-answer"]) == 78
