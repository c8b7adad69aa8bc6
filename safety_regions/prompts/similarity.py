"""When two prompts are the same: exactly, or nearly (Jaccard similarity of character 5-grams above 0.7).

A text is normalised first: lower case, every run of white space one space, none at the ends. Its grams are
the *set* of its substrings of 5 characters; a shorter text has one gram, itself. Two texts are near when

    |grams in both| / |grams in either| > 0.7          (as integers: 10 * both > 7 * either)

Punctuation stays. On the safety sets as published this finds, for example, 26 of the 313 prompts of
StrongREJECT near to one of AdvBench, and 323 of the 1,960 of HarmfulQA near to another one there.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_array

GRAM = 5  # characters
MORE_THAN = (7, 10)  # the similarity as a fraction of integers, so that no rounding decides
CELLS = 2**20  # pairs that are compared at once; at some 30 bytes each, tens of megabytes


def normalise(text: str) -> str:
    """Lower case, white space collapsed."""
    return " ".join(text.lower().split())


def character_grams(text: str) -> frozenset[str]:
    """The set of 5-grams of the normalised text; the text itself where it is shorter."""
    text = normalise(text)
    return frozenset(text[i : i + GRAM] for i in range(max(1, len(text) - GRAM + 1)))


def near_pairs(texts: Sequence[str]) -> list[tuple[int, int]]:
    """All pairs i < j of near texts, in order; exact.

    Texts are rows of a sparse matrix, grams its columns, and an entry says that the text has the gram. The
    product with its transpose counts the grams that two texts share; it is made block by block of rows.
    """
    if not texts:
        return []
    has = _grams_of_texts(texts)
    sizes = np.diff(has.indptr).astype(np.int64)
    by_gram = has.T.tocsr()
    step = max(1, CELLS // len(texts))
    pairs = []
    for start in range(0, len(texts), step):
        shared = (has[start : start + step] @ by_gram).tocoo()
        i, j = shared.row + start, shared.col
        near = (i < j) & _near(shared.data, sizes[i], sizes[j])
        pairs += zip(i[near].tolist(), j[near].tolist(), strict=True)
    return sorted(pairs)


def distinct_from_earlier(texts: Sequence[str], near: bool) -> list[bool]:
    """For each text, whether it differs from every *kept* text before it: the first of a kind stays.

    Args:
        texts: in the order of the source.
        near: near texts count as the same; otherwise only texts equal after normalising.
    """
    if not near:
        first = {normalise(text): i for i, text in reversed(list(enumerate(texts)))}
        return [first[normalise(text)] == i for i, text in enumerate(texts)]
    kept = [True] * len(texts)
    # In order of the later text, so that every earlier one is decided before it is asked.
    for i, j in sorted(near_pairs(texts), key=lambda pair: pair[1]):
        kept[j] = kept[j] and not kept[i]
    return kept


def _grams_of_texts(texts: Sequence[str]) -> "csr_array":
    """(texts, grams): 1 where the text has the gram."""
    from scipy.sparse import csr_array  # here, for it takes longer to import than most jobs to run

    grams = [character_grams(text) for text in texts]
    number = {gram: n for n, gram in enumerate(dict.fromkeys(gram for each in grams for gram in each))}
    columns = np.array([number[gram] for each in grams for gram in each], dtype=np.int32)
    ends = np.cumsum([0, *map(len, grams)], dtype=np.int32)
    return csr_array((np.ones_like(columns), columns, ends), shape=(len(texts), len(number)))


def _near(both: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Whether texts of a and b grams are near if they share ``both``."""
    part, whole = MORE_THAN
    return whole * both > part * (a + b - both)
