"""When two prompts are the same: exactly, or nearly (Jaccard similarity of character 5-grams above 0.7).

A text is normalised first: lower case, every run of white space one space, none at the ends. Its grams are
the *set* of its substrings of 5 characters; a shorter text has one gram, itself. Two texts are near when

    |grams in both| / |grams in either| > 0.7          (as integers: 10 * both > 7 * either)

Punctuation stays. On the safety sets as published this finds, for example, 26 of the 313 prompts of
StrongREJECT near to one of AdvBench, and 323 of the 1,960 of HarmfulQA near to another one there.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence

GRAM = 5  # characters
MORE_THAN = (7, 10)  # the similarity as a fraction of integers, so that no rounding decides


def normalise(text: str) -> str:
    """Lower case, white space collapsed."""
    return " ".join(text.lower().split())


def character_grams(text: str) -> frozenset[str]:
    """The set of 5-grams of the normalised text; the text itself where it is shorter."""
    text = normalise(text)
    return frozenset(text[i : i + GRAM] for i in range(max(1, len(text) - GRAM + 1)))


def near_pairs(texts: Sequence[str]) -> list[tuple[int, int]]:
    """All pairs i < j of near texts, in order; exact, yet far from comparing every pair.

    Prefix filtering (Bayardo et al. 2007, All-Pairs): near texts of n and m grams share more than
    0.7 max(n, m) of them. So if the grams of every text stand in one fixed order, and the rarest come
    first, two near texts share a gram among their first n - floor(0.7 n) and m - floor(0.7 m).
    Only texts that meet there, and whose sizes allow it, are compared.
    """
    grams = _rarest_first([character_grams(text) for text in texts])
    sets = [frozenset(g) for g in grams]
    met: dict[int, list[int]] = defaultdict(list)
    pairs = []
    for j in sorted(range(len(texts)), key=lambda i: len(grams[i])):
        prefix = _prefix(grams[j])
        candidates = {i for gram in prefix for i in met[gram] if _sizes_allow(len(sets[i]), len(sets[j]))}
        pairs += [(min(i, j), max(i, j)) for i in candidates if _near(sets[i], sets[j])]
        for gram in prefix:
            met[gram].append(j)
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


def _rarest_first(sets: Sequence[frozenset[str]]) -> list[list[int]]:
    """Grams as numbers, rare ones small; each text's in ascending order."""
    frequency = Counter(gram for grams in sets for gram in grams)
    ordered = sorted(frequency, key=lambda gram: (frequency[gram], gram))
    number = {gram: n for n, gram in enumerate(ordered)}
    return [sorted(number[gram] for gram in grams) for grams in sets]


def _prefix(grams: list[int]) -> list[int]:
    part, whole = MORE_THAN
    return grams[: len(grams) - len(grams) * part // whole]


def _sizes_allow(small: int, large: int) -> bool:
    part, whole = MORE_THAN
    return whole * small > part * large


def _near(a: frozenset[int], b: frozenset[int]) -> bool:
    part, whole = MORE_THAN
    both = len(a & b)
    return whole * both > part * (len(a) + len(b) - both)
