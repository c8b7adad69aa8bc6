"""All mistakes in a config are reported at once, before any job, with their places and the allowed values."""

import copy
import json

import pytest
import yaml

from safety_regions.errors import StudyError
from safety_regions.study.catalog import Shelf, check, schema, with_types
from safety_regions.study.config import read_study
from safety_regions.study.method_shelf import own_selection
from safety_regions.study.yaml_keys import repeated_keys
from safety_regions.units.selections import parse_selection
from tests.paths import ROOT

GOOD = {
    "backbones": ["organism-llama"],
    "datasets": {"identification": ["fraud", "hacking"], "utility": ["everyday"]},
    "methods": {"snip": {}, "wanda": None},
}
CARD = {
    "role": "identification",
    "title": "Mine",
    "licence": "none stated",
    "embedded": {"path": "fraud.jsonl"},
}
# Text -> whether it is a selection of the neurons on which prompts agree.
AGREEMENTS = {
    "common-0.2": True, "common-plnd": True, "common-plnd-0.5": True, "common-1": True, "above-0.01-0.9": True,
    "above-12": True, "above-plnd": False, "common-0": False, "common-1.5": False, "common-0.2-0": False,
    "above-0": False, "above-0.01-2": False, "matrix-0.2": False, "common": False,
}  # fmt: skip


def edited(**changes) -> dict:
    """Return the good config with changes; a double underscore in a key leads to a nested key."""
    config = copy.deepcopy(GOOD)
    for path, value in changes.items():
        *outer, last = path.split("__")
        target = config
        for key in outer:
            target = target.setdefault(key, {})
        target[last] = value
    return config


def neurons(selection: str) -> dict:
    """Return the good config with a method of neurons and this selection."""
    return edited(methods={"safeneuron": {"selections": [selection]}})


def problems(config: dict) -> str:
    with pytest.raises(StudyError) as raised:
        read_study(config)
    return str(raised.value)


def test_a_good_config_is_filled_in():
    study = read_study(GOOD)
    assert study.refinements == ("raw", "minus-everyday")
    assert study.samples["identify"] == 100 and study.responses["origin"] == "backbone"
    assert study.methods["snip"].options == {"loss": "mean", "accumulator": "float32"}
    assert study.methods["wanda"].selections == ("row-0.05",)
    assert study.keep_of("fraud") == "refused" and study.keep_of("everyday") == "complied"


def test_as_many_sets_and_methods_as_are_compared_at_once():
    sets, methods = (f"set-{i}" for i in range(16)), {f"m{i}": {"method": "wanda"} for i in range(16)}
    cards = {"datasets": {name: CARD for name in sets}}
    own = {"datasets__identification": list(cards["datasets"]), "cards": cards, "methods": methods}
    study = read_study(edited(**own, compare_methods=0.01, kept={"matrix": 0.01}))
    assert len(study.identification) == len(study.methods) == 16
    assert len(read_study(edited(methods={**methods, "m16": {"method": "wanda"}})).methods) == 17


def test_a_preset_brings_options_and_selections_and_yields_to_the_user():
    study = read_study(edited(methods={"released": {"method": "snip", "preset": "wei_code"}}))
    assert study.methods["released"].options["accumulator"] == "native"
    assert study.methods["released"].selections == ("row-0.05", "matrix-0.05")
    own = {
        "method": "snip",
        "preset": "wei_code",
        "options": {"accumulator": "float32"},
        "selections": ["row-0.02"],
    }
    study = read_study(edited(methods={"mine": own}))
    assert study.methods["mine"].options["accumulator"] == "float32"
    assert study.methods["mine"].selections == ("row-0.02",)


def test_harmful_answers_may_be_asked_for_where_the_sets_bring_them():
    own = {"responses": {"origin": "dataset", "keep_identification": "complied"}}
    asked = {"signed_snip": {"options": {"responses": "complied"}, "selections": ["matrix-0.01"]}}
    assert read_study(edited(methods=asked, **own)).methods["signed_snip"].options["responses"] == "complied"


def test_a_tiny_fraction_needs_no_weight_of_a_small_matrix_if_regions_may_be_empty():
    tiny = {"signed_snip": {"preset": "orgad_code"}}
    assert "1e-05 of" in problems(edited(methods=tiny))
    assert read_study(edited(methods=tiny, allow_empty=True)).methods["signed_snip"].selections == (
        "matrix-0.00001",
    )


def test_text_counts_as_the_number_boolean_or_null_that_the_schema_wants():
    """Snakemake hands over nested values of --config as text, and YAML reads 1e-4 as text."""
    written = {
        "samples": {"identify": "4", "candidates": "8", "evaluate_fraction": "0.5", "equal": "true"},
        "adapters": {"supervised": {"learning_rate": "1e-4"}, "check_amplified": "null"},
        "sample_sizes": {"sizes": ["2", "4"]},
        "methods": {"snip": "", "safeneuron": {"options": {"index_bug": "true"}}},
        "responses": {"origin": "fixed", "text": "7", "keep_identification": "all", "keep_utility": "all"},
    }
    study = read_study(edited(**written))
    assert {**written["samples"], **study.samples}.items() >= {
        "identify": 4, "candidates": 8, "evaluate_fraction": 0.5, "equal": True,
    }.items()  # fmt: skip
    assert study.adapters["supervised"]["learning_rate"] == 1e-4
    assert study.adapters["check_amplified"] is None
    assert study.sample_sizes["sizes"] == [2, 4] and study.responses["text"] == "7"
    assert study.methods["safeneuron"].options["index_bug"] is True and "snip" in study.methods


@pytest.mark.parametrize(
    "text", ["four", "4.5", "true", "null", "", "[4]", "nan", "1e400", "4: 5", "2024-13-01"]
)
def test_text_that_is_no_such_value_stays_an_error(text):
    found = problems(edited(samples__identify=text))
    assert f"samples: identify: found {json.dumps(text)}; expected type integer" in found


def test_documents_with_the_right_types_are_not_touched():
    for path in (ROOT / "config").glob("*.yaml"):
        config = yaml.safe_load(path.read_text())
        assert repr(with_types(config, schema("config"))) == repr(config)
    for folder in ("backbones", "datasets"):
        shelf = Shelf(folder, {})
        for name in shelf.names:
            card = shelf.read(name)
            kind = card.get("kind", "dataset")
            assert repr(with_types(card, schema(kind))) == repr(card)


TWICE = """\
samples:
  identify: 4
  identify: 40
methods:
  snip: {}
  snip: {preset: wei_code}
cards: {datasets: {x: {"title": a, title: b}}}
samples: {}
"""


def test_keys_given_twice_are_named_with_their_lines(tmp_path):
    (tmp_path / "mine.yaml").write_text(TWICE)
    with pytest.raises(StudyError, match="4 problems") as raised:
        read_study(GOOD, "mine.yaml", [tmp_path / "mine.yaml"])
    for key, lines in (
        ("samples", "1, 8"), ("samples: identify", "2, 3"), ("methods: snip", "5, 6"),
        ("cards: datasets: x: title", "7, 7"),
    ):  # fmt: skip
        assert f"- mine.yaml: {key}: found this key in lines {lines}; expected each key once" in str(
            raised.value
        )


@pytest.mark.parametrize(
    ("text", "lines"),
    [('{\n\t"seed": 1,\n\t"seed": 2\n}', ["2, 3"]), ("seed: &a {b: 1}\nc: *a\nd: {<<: *a, b: 2}\n", []), ("", []),
     ("[1]", []), ("? [a]\n: 1\n? [a]\n: 2\n", []), ("a:\n- {b: 1, b: 2}\n", ["2, 2"]), ("a: [", [])],
)  # fmt: skip
def test_keys_given_twice_in_json_lists_and_merges(text, lines):
    found = [line.partition("lines ")[2].partition(";")[0] for line in repeated_keys(text, "x")]
    assert found == lines


@pytest.mark.slow
@pytest.mark.parametrize("written", ["no", "on", "12", "1.5", "2024-07-26"])
def test_a_name_that_yaml_does_not_read_as_text_needs_quotes(written):
    value = yaml.safe_load(written)
    for config in (
        edited(datasets__identification=["fraud", value]),
        edited(backbones=[value]),
        edited(methods={"snip": {}, value: {"method": "snip"}}),
        edited(cards={"datasets": {value: CARD}}),
        edited(
            **{
                "cards": {"datasets": {"mine": {**CARD, "title": value}}},
                "datasets__identification": ["mine"],
            }
        ),
    ):
        found = problems(config)
        assert "Try: quotes around it; YAML reads no, yes, on, off, numbers and dates" in found
        assert "unknown dataset" not in found


@pytest.mark.parametrize("name", ["my_set", "MySet", "my set", "-a", "a.b"])
def test_what_an_inline_card_may_be_called(name):
    found = problems(
        edited(cards={"datasets": {name: CARD, "mine": CARD}}, datasets__identification=[name, "mine"])
    )
    says = f'- config: cards: datasets: found "{name}"; expected a name of lower-case letters, digits and'
    assert "1 problem\n" in found and says in found


BAD = {
    "misspelt key": (edited(backbone=["x"]), ["unknown key 'backbone'", "Did you mean 'backbones'"]),
    "missing section": ({k: v for k, v in GOOD.items() if k != "methods"}, ["no 'methods'"]),
    "wrong type": (edited(backbones="organism-llama"), ["backbones", "type array"]),
    "seed no integer": (edited(seed="zero"), ["seed", "type integer"]),
    "negative seed": (edited(seed=-1), ["seed", "at least 0"]),
    "no backbone": (edited(backbones=[]), ["backbones", "at least 1"]),
    "no dataset": (edited(datasets__identification=[]), ["datasets: identification", "at least 1"]),
    "no method": (edited(methods={}), ["methods", "at least 1"]),
    "unknown backbone": (
        edited(backbones=["organism-lama"]),
        ["'organism-lama'", "Did you mean 'organism-llama'"],
    ),
    "unknown dataset": (edited(datasets__identification=["frod"]), ["'frod'", "Did you mean 'fraud'"]),
    "unknown method": (edited(methods={"wanad": {}}), ["'wanad'", "Did you mean 'wanda'", "snip"]),
    "unknown option": (
        edited(methods={"snip": {"options": {"los": "sum"}}}),
        ["'los'", "Did you mean 'loss'"],
    ),
    "wrong option": (edited(methods={"snip": {"options": {"loss": "max"}}}), ["loss", "mean"]),
    "unknown preset": (
        edited(methods={"snip": {"preset": "wei_cod"}}),
        ["'wei_cod'", "Did you mean 'wei_code'"],
    ),
    "unknown key of a method": (
        edited(methods={"snip": {"selection": ["row-0.1"]}}),
        ["'selection'", "selections"],
    ),
    "method name with a slash": (edited(methods={"a/b": {"method": "snip"}}), ["methods", "a/b"]),
    "fraction zero": (edited(methods={"snip": {"selections": ["row-0"]}}), ["fraction 0.0", "more than 0"]),
    "fraction above one": (
        edited(methods={"snip": {"selections": ["row-1.5"]}}),
        ["fraction 1.5", "at most 1"],
    ),
    "fraction not stored": (
        edited(methods={"snip": {"selections": ["row-0.2"]}}),
        ["0.05", "kept: {row: 0.2}"],
    ),
    "scope not stored": (
        edited(methods={"snip": {"selections": ["layer-0.05"]}}),
        ["nothing", "kept: {layer: 0.05}"],
    ),
    "fraction of a row that is no weight": (
        edited(methods={"snip": {"selections": ["row-0.001"]}}),
        ["0.001 of 64 weights of a row scope of 'organism-llama'", "allow_empty: true"],
    ),
    "fraction of the layers that is none": (
        edited(methods={"safelayer": {"selections": ["global-0.1"]}}, datasets__utility=["everyday"]),
        ["0.1 of 4 layers", "at least 0.25"],
    ),
    "fraction of a module's neurons that is none": (
        neurons("matrix-0.001"),
        ["0.001 of 32 neurons of a matrix scope", "allow_empty: true"],
    ),
    "methods compared at less than a layer": (
        edited(methods={"safelayer": {}}, datasets__utility=["everyday"], compare_methods=0.1),
        ["compare_methods: found 0.1 of 4 layers"],
    ),
    "less than one direction of the adapter": (
        edited(
            methods={"nlsr": {"options": {"retained": 0.01}}}, adapters={"harmful": ["fraud"], "rank": 16}
        ),
        ["nlsr: options: retained", "0.01 of 16 directions"],
    ),
    "unknown scope": (
        edited(methods={"snip": {"selections": ["column-0.05"]}}),
        ["column-0.05", "row|matrix"],
    ),
    "agreement of weights": (
        edited(methods={"snip": {"selections": ["common-0.2"]}}),
        ["common-0.2", "row|matrix"],
    ),
    "agreement above one": (neurons("common-1.5"), ["'common-1.5'", "fraction (0-1]"]),
    "agreement on nothing": (neurons("above-0"), ["'above-0'", "e.g. above-0.01"]),
    "presence above one": (neurons("common-0.2-1.1"), ["'common-0.2-1.1'", "fraction (0-1]"]),
    "presence zero": (neurons("common-plnd-0"), ["'common-plnd-0'", "fraction (0-1]"]),
    "unknown fraction": (neurons("common-plnt"), ["'common-plnt'", "matrix|layer|global", "common-0.2"]),
    "minus an unknown method": (
        edited(methods={"snip": {"minus": {"method": "wand"}}, "wanda": {}}),
        ["methods: snip: minus: method", "'wand'", "Did you mean 'wanda'"],
    ),
    "minus other units": (
        edited(methods={"snip": {"minus": {"method": "safeneuron"}}, "safeneuron": {}}),
        ["minus: method: found 'safeneuron', which scores neurons of q, k, v, up, down", "weights of q"],
    ),
    "minus neurons of other projections": (
        edited(methods={"change_score": {"minus": {"method": "safeneuron"}}, "safeneuron": {}}),
        ["minus: method: found 'safeneuron'", "expected a method that scores neurons of up, down"],
    ),
    "minus a fraction that is not stored": (
        edited(methods={"snip": {"minus": {"method": "wanda", "selection": "row-0.2"}}, "wanda": {}}),
        ["methods: snip: minus: selection", "0.05 of scope row", "kept: {row: 0.2}"],
    ),
    "minus a selection that the other method has not": (
        edited(methods={"snip": {"minus": {"selection": "common-0.2"}}}),
        ["methods: snip: minus: selection", "common-0.2", "row|matrix"],
    ),
    "minus a fraction that is no weight": (
        edited(methods={"snip": {"minus": {"selection": "row-0.001"}}}),
        ["methods: snip: minus: selection: found 0.001 of 64 weights of a row", "allow_empty: true"],
    ),
    "unknown key of minus": (
        edited(methods={"snip": {"minus": {"selections": ["row-0.05"]}}}),
        ["methods: snip: minus: unknown key 'selections'", "Did you mean 'selection'"],
    ),
    "harmful answers of the backbone": (
        edited(methods={"signed_snip": {"options": {"responses": "complied"}}}),
        ["options: responses: found 'complied' with responses of origin backbone", "sets' own files"],
    ),
    "harmful answers among refusals": (
        edited(methods={"signed_snip": {"options": {"responses": "complied"}}}, responses__origin="dataset"),
        ["'complied' with responses of origin dataset, of which refused are kept", "keep_identification"],
    ),
    "refusals among harmful answers": (
        edited(
            methods={"signed_snip": {}},
            responses={"origin": "dataset", "keep_identification": "complied"},
        ),
        ["methods: signed_snip: options: responses: found 'refused'", "the option 'complied'"],
    ),
    "kept above one": (edited(kept={"row": 2}), ["kept: row", "at most 1"]),
    "dataset twice": (edited(datasets__identification=["fraud", "fraud"]), ["fraud more than once"]),
    "more sets than are compared at once": (
        edited(
            datasets__identification=[f"set-{i}" for i in range(17)],
            cards={"datasets": {f"set-{i}": CARD for i in range(17)}},
        ),
        ["datasets: identification: found 17 sets; expected at most 16", "1 problem\n"],
    ),
    "more methods than are compared at once": (
        edited(
            methods={f"m{i}": {"method": "wanda"} for i in range(17)},
            compare_methods=0.01,
            kept={"matrix": 0.01},
        ),
        ["compare_methods: found 17 methods; expected at most 16", "1 problem\n"],
    ),
    "dataset in both roles": (
        edited(datasets__utility=["fraud"]),
        ["'fraud' under both identification and utility"],
    ),
    "backbone twice": (edited(backbones=["organism-llama"] * 2), ["organism-llama more than once"]),
    "more samples than rows": (
        edited(samples={"identify": 140, "candidates": 140}),
        ["140", "128", "160 rows"],
    ),
    "fewer candidates than samples": (
        edited(samples={"candidates": 50}),
        ["candidates", "at least identify (100)"],
    ),
    "everything held out": (edited(samples={"evaluate_fraction": 1.0}), ["evaluate_fraction", "less than 1"]),
    "unknown origin": (edited(responses={"origin": "backbon"}), ["origin", "'backbone'"]),
    "fixed response without a text": (
        edited(responses={"origin": "fixed", "keep_identification": "all", "keep_utility": "all"}),
        ["responses: text", "no text"],
    ),
    "text for responses of the backbone": (
        edited(responses={"text": "No."}),
        ["responses: text", "only then"],
    ),
    "blank fixed response": (edited(responses={"origin": "fixed", "text": " "}), ["responses: text"]),
    "fixed response that would be left out": (
        edited(responses={"origin": "fixed", "text": "No.", "keep_identification": "all"}),
        ["responses: keep_utility", "complied", "all, because"],
    ),
    "no new tokens": (edited(responses={"max_new_tokens": 0}), ["max_new_tokens", "at least 1"]),
    "unknown refinement": (
        edited(refinements=["minus-everyda"]),
        ["'minus-everyda'", "Did you mean 'minus-everyday'"],
    ),
    "no such study": (
        edited(compare_with={"old": "nowhere"}),
        ["compare_with: old", "no file nowhere/overlap/iou.parquet"],
    ),
    "no such data_dir": (edited(data_dir="nowhere/at/all"), ["'nowhere/at/all'", "not a folder"]),
    "inline card without role": (
        edited(datasets__identification=["mine"], cards={"datasets": {"mine": {"title": "Mine"}}}),
        ["cards: mine", "no 'role'"],
    ),
    "inline card with a missing file": (
        edited(
            datasets__identification=["mine"],
            cards={"datasets": {"mine": CARD | {"embedded": {"path": "none.jsonl"}}}},
        ),
        ["mine", "no file"],
    ),
    "a set whose role is another": (
        edited(datasets__identification=["everyday"], datasets__utility=[]),
        ["'everyday'", "role utility"],
    ),
    "backbone of no kind": (
        edited(backbones=["mine"], cards={"backbones": {"mine": {"family": "llama"}}}),
        ["cards: mine", "checkpoint or organism"],
    ),
    "backbone from two places": (
        edited(
            backbones=["mine"],
            cards={
                "backbones": {"mine": {"kind": "checkpoint", "family": "llama", "repo": "a/b", "path": "c"}}
            },
        ),
        ["cards: mine", "exactly one of: repo; path"],
    ),
    "unsupported family": (
        edited(
            backbones=["mine"],
            cards={"backbones": {"mine": {"kind": "checkpoint", "family": "gpt2", "repo": "a/b"}}},
        ),
        ["family", "gpt2", "llama"],
    ),
    "no checkpoint there": (
        edited(
            backbones=["mine"],
            cards={"backbones": {"mine": {"kind": "checkpoint", "family": "llama", "path": "nowhere"}}},
        ),
        ["no config.json in 'nowhere'"],
    ),
    "card name with an upper letter": (edited(cards={"datasets": {"Mine": CARD}}), ["Mine"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_configs_say_what_to_mend(case):
    config, expected = BAD[case]
    message = problems(config)
    for part in expected:
        assert part in message, message


@pytest.mark.parametrize(
    "model_type, files, found",
    [
        ("gpt2", {"tokenizer_config.json": '{"chat_template": "x"}'}, "model_type 'gpt2'"),
        ("llama", {}, "no tokenizer_config.json"),
        ("llama", {"tokenizer_config.json": "{}"}, "a tokenizer without a chat template"),
    ],
)
def test_a_local_checkpoint_is_looked_at_before_any_job(tmp_path, model_type, files, found):
    files = {"config.json": f'{{"model_type": "{model_type}"}}', "model.safetensors": "", **files}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    card = {"kind": "checkpoint", "family": "llama", "path": str(tmp_path)}
    message = problems(edited(backbones=["mine"], cards={"backbones": {"mine": card}}))
    assert "1 problem\n" in message and found in message


def test_all_problems_at_once():
    message = problems(edited(seed=-1, backbones=["x"], methods={"wanad": {}}, refinements=["y"]))
    assert "4 problems" in message
    assert all(part in message for part in ("seed", "'x'", "'wanad'", "'y'")), message


@pytest.mark.parametrize(
    "path", ["config.yaml", *(f"config/{p.name}" for p in (ROOT / "config").glob("*.yaml"))]
)
def test_the_shipped_studies_are_good(path):
    config = yaml.safe_load((ROOT / path).read_text())
    if config.get("data_dir") and not (ROOT / config["data_dir"]).is_dir():
        config.pop("data_dir")
    study = read_study(config, path)
    assert list(study.backbones) == config["backbones"]
    assert {"identification": list(study.identification), "utility": list(study.utility)} == {
        "utility": [],
        **config["datasets"],
    }
    assert list(study.methods) == list(config["methods"])
    assert all(method.selections for method in study.methods.values())


@pytest.mark.parametrize("name", Shelf("backbones", {}).names)
def test_every_backbone_card_is_good(name):
    card = Shelf("backbones", {}).read(name)
    assert check(card, schema(card["kind"]), name) == []


def test_selections():
    assert parse_selection("row-0.05") == ("row", 0.05)
    assert parse_selection("global-1") == ("global", 1.0)
    assert parse_selection("column-0.05") is None and parse_selection("row") is None


def test_agreements():
    own = {text: own_selection("safeneuron", text) is not None for text in AGREEMENTS}
    assert own == AGREEMENTS


def test_neurons_are_stored_whole_whatever_is_kept_of_weights():
    method = neurons("global-0.9")["methods"] | {"snip": {}}
    study = read_study(edited(methods=method, kept={"row": 0.05, "matrix": 0.01}))
    assert study.methods["safeneuron"].kept == {"matrix": 1.0, "layer": 1.0, "global": 1.0}
    assert study.methods["snip"].kept == {"row": 0.05, "matrix": 0.01}


def test_every_key_has_a_description():
    def undescribed(rules: dict, place: str):
        for key, rule in rules.get("properties", {}).items():
            if "description" not in rule and not rule.get("properties") and "const" not in rule:
                yield f"{place}: {key}"
            yield from undescribed(rule, f"{place}: {key}")

    missing = [
        place for kind in ("config", "checkpoint", "dataset") for place in undescribed(schema(kind), kind)
    ]
    assert [place for place in missing if ": cards: " not in place] == []


def test_a_missing_key_is_named_once():
    with pytest.raises(StudyError) as error:
        read_study({"methods": {"snip": {}}})
    assert str(error.value).count("found no 'backbones'") == 1
    assert str(error.value).startswith("The config is not valid: 2 problems")
