"""Compare prompts: equal, or near duplicates (Jaccard similarity of character 5-grams above 0.7).

A text is normalised first: lower case, each run of white space replaced by one space, none at the ends. Its grams
are the *set* of its substrings of 5 characters; a shorter text has one gram, itself. Two texts are near if

    |grams in both| / |grams in either| > 0.7          (as integers: 10 * both > 7 * either)

Punctuation is kept. On the published safety datasets, for example, 26 of the 313 prompts of StrongREJECT are near a
prompt of AdvBench, and 323 of the 1,960 prompts of HarmfulQA are near another prompt of HarmfulQA.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_array

GRAM = 5  # characters
MORE_THAN = (7, 10)  # the threshold as a ratio of integers, so that rounding has no effect
CELLS = 2**20  # pairs that are compared at once; at about 30 bytes each, tens of megabytes


def normalise(text: str) -> str:
    """Lower case, white space collapsed."""
    return " ".join(text.lower().split())


def character_grams(text: str) -> frozenset[str]:
    """The set of 5-grams of the normalised text; the text itself if it is shorter."""
    text = normalise(text)
    return frozenset(text[i : i + GRAM] for i in range(max(1, len(text) - GRAM + 1)))


def near_pairs(texts: Sequence[str]) -> list[tuple[int, int]]:
    """All pairs i < j of near texts, sorted; computed exactly.

    A sparse matrix has a row per text, a column per gram, and a 1 where the text contains the gram. Its product with
    its transpose counts the grams that two texts share; it is computed for one block of rows at a time.
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
    """For each text, whether it differs from every *kept* text before it; the first of several duplicates is kept.

    Args:
        texts: in the order of the source.
        near: whether near texts count as duplicates; otherwise only texts that are equal after normalisation.
    """
    if not near:
        first = {normalise(text): i for i, text in reversed(list(enumerate(texts)))}
        return [first[normalise(text)] == i for i, text in enumerate(texts)]
    kept = [True] * len(texts)
    # Sorted by the later text, so that kept[i] is final before it is used.
    for i, j in sorted(near_pairs(texts), key=lambda pair: pair[1]):
        kept[j] = kept[j] and not kept[i]
    return kept


def _grams_of_texts(texts: Sequence[str]) -> "csr_array":
    """(texts, grams): 1 if the text contains the gram."""
    from scipy.sparse import csr_array  # imported here because the import takes longer than most jobs

    grams = [character_grams(text) for text in texts]
    number = {gram: n for n, gram in enumerate(dict.fromkeys(gram for each in grams for gram in each))}
    columns = np.array([number[gram] for each in grams for gram in each], dtype=np.int32)
    ends = np.cumsum([0, *map(len, grams)], dtype=np.int32)
    return csr_array((np.ones_like(columns), columns, ends), shape=(len(texts), len(number)))


def _near(both: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Whether two texts with ``a`` and ``b`` grams, ``both`` of them shared, are near."""
    part, whole = MORE_THAN
    return whole * both > part * (a + b - both)
