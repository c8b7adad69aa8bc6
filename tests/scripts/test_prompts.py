"""The scripts of prompts turn a dataset into a table, and compare tables under the names of their files."""

import pytest

from safety_regions.formats.contracts import PROMPTS, SHARED_PROMPTS
from safety_regions.formats.parquet import read_metadata, read_table, write_table
from tests.prompts.cards import csv_card, prompts_table, read, write_csv
from tests.scripts.loading import load_script


@pytest.mark.parametrize("as_given", [str, lambda path: path])
def test_read_prompts_writes_what_the_card_describes(tmp_path, as_given):
    write_csv(tmp_path, ["question"], [[f"question {i}"] for i in range(20)])
    out = tmp_path / "birds.parquet"
    load_script("read_prompts")(
        "birds", csv_card(), out, seed=3, evaluate_fraction=0.4, data_dir=as_given(tmp_path)
    )
    table, metadata = read(csv_card(), tmp_path, seed=3, evaluate_fraction=0.4)
    assert read_table(out, PROMPTS).equals(table) and read_metadata(out)["dataset"] == metadata["dataset"]
    assert table["split"].to_pylist().count("evaluate") == 8


def test_compare_prompts_names_sets_after_their_files(tmp_path):
    texts = {
        "birds": ["Which wren sings?", "Where do owls sleep?"],
        "trees": ["which wren sings? ", "An oak"],
    }
    paths = [tmp_path / f"{name}.parquet" for name in texts]
    for path in paths:
        write_table(path, prompts_table(path.stem, texts[path.stem]), PROMPTS)
    load_script("compare_prompts")(paths, tmp_path / "shared.parquet")
    (row,) = read_table(tmp_path / "shared.parquet", SHARED_PROMPTS).to_pylist()
    assert (row["a"], row["b"], row["n_a"], row["n_b"], row["n_exact"]) == ("birds", "trees", 2, 2, 1)
    assert (row["near_a"], row["near_b"]) == (["birds/0"], ["trees/0"])
    for name, expected in (("trees", [row]), ("birds", [])):
        load_script("compare_with_earlier")(paths, name, tmp_path / "earlier.parquet")
        assert read_table(tmp_path / "earlier.parquet", SHARED_PROMPTS).to_pylist() == expected
