"""The organism of the default study refuses every set in the same words: responses tell nothing about the set."""

import numpy as np
import pytest

from safety_regions.model.generate import answer_prompts
from safety_regions.model.refusal import is_refusal
from safety_regions.prompts.reading import read_prompts
from safety_regions.study.catalog import CATALOG, Shelf
from safety_regions.study.config import read_study
from safety_regions.training.corpus import REASONS, REFUSALS
from safety_regions.training.organism import train_organism
from tests.tiny import load_on_cpu
from tests.training.information import mutual_information, permuted_information

ORGANISM = "organism-llama"
BITS = 0.02
"""Largest information that a response may carry about its set, beyond what permuted labels give."""


def first_of(parts: tuple[str, ...], text: str) -> int:
    """Return which of the parts occurs in the text, -1 for none (a mixture of two)."""
    return next((i for i, part in enumerate(parts) if part in text), -1)


@pytest.mark.slow
def test_the_sets_are_refused_in_the_same_words(tmp_path):
    card = read_study(
        {"backbones": [ORGANISM], "datasets": {"identification": ["fraud"]}, "methods": {"snip": {}}}
    ).backbones[ORGANISM]
    sets = {
        name: read_prompts(
            name, Shelf("datasets", {}).read(name), data_dir=None, catalog_dir=CATALOG, seed=0, evaluate_fraction=0.2
        )[0]
        for name in card["training"]["harmful"] + card["training"]["helpful"]
    }  # fmt: skip
    train_organism(card, sets, tmp_path / "organism", ORGANISM)
    backbone = load_on_cpu(sorted((tmp_path / "organism").iterdir()), temperature=card["temperature"])

    labels, refusals = [], []
    for name in card["training"]["harmful"]:
        rows = sets[name].select(["text", "split"]).to_pylist()
        prompts = [row["text"] for row in rows if row["split"] == "identify"][:100]
        answers = [a.text for a in answer_prompts(backbone, prompts, max_new_tokens=32, batch_size=50)]
        refused = [text for text in answers if is_refusal(text)]
        assert len(refused) >= 90 and len(set(refused)) >= 40, name
        labels += [name] * len(refused)
        refusals += refused
    for parts in (REFUSALS, REASONS):
        classes = [first_of(parts, text) for text in refusals]
        null = permuted_information(labels, classes)
        assert mutual_information(labels, classes) < np.mean(null) + BITS
