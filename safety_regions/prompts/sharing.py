"""Find the prompts that two datasets share, and decide which of them to leave out.

Shared prompts raise the IoU of two regions for a reason that has nothing to do with safety. They are therefore
counted for every pair of datasets, and can be dropped before scoring.
"""

from collections import defaultdict
from collections.abc import Mapping
from itertools import combinations

import pyarrow as pa

from safety_regions.formats.contracts import SHARED_PROMPTS
from safety_regions.formats.parquet import conform
from safety_regions.prompts.similarity import near_pairs


def shared_prompts(tables: Mapping[str, pa.Table]) -> pa.Table:
    """One row for every pair a < b of datasets (`contracts.SHARED_PROMPTS`), also if they share no prompts.

    Args:
        tables: dataset name -> its prompts (`contracts.PROMPTS`).

    Returns:
        Counts are prompts of a with a match in b (a prompt with two matches counts once). Exact matches are
        equal after ``lower().strip()``; near matches are defined in `similarity` and include the exact ones.
    """
    names = sorted(tables)
    ids = {name: tables[name]["prompt_id"].to_pylist() for name in names}
    texts = {name: tables[name]["text"].to_pylist() for name in names}
    near = _near_between(names, ids, texts)
    exact = {name: {text.lower().strip() for text in texts[name]} for name in names}
    rows = [
        {
            "a": a,
            "b": b,
            "n_a": len(ids[a]),
            "n_b": len(ids[b]),
            "n_exact": sum(text.lower().strip() in exact[b] for text in texts[a]),
            "n_near": len({of_a for of_a, _ in near[a, b]}),
            "near_a": [of_a for of_a, _ in sorted(near[a, b])],
            "near_b": [of_b for _, of_b in sorted(near[a, b])],
        }
        for a, b in combinations(names, 2)
    ]
    return conform(pa.Table.from_pylist(rows, schema=SHARED_PROMPTS.schema), SHARED_PROMPTS)


def shared_with_earlier(tables: Mapping[str, pa.Table], dataset: str) -> pa.Table:
    """The rows of `shared_prompts` in which ``dataset`` is the later one: they say which of its prompts to drop."""
    found = shared_prompts(tables)
    return found.filter(pa.array([b == dataset for b in found["b"].to_pylist()], pa.bool_()))


def prompts_to_drop(shared: pa.Table) -> dict[str, set[str]]:
    """Dataset -> ids to leave out so that no two datasets share a near match; only datasets with such ids.

    A shared prompt stays in the dataset whose name comes first in the alphabet and is dropped from every later one.
    Each pair is decided on its own: if a prompt of b is dropped because of a, a prompt of c that matches only this
    prompt is dropped too.
    """
    dropped: dict[str, set[str]] = defaultdict(set)
    for row in shared.select(["b", "near_b"]).to_pylist():
        if row["near_b"]:
            dropped[row["b"]] |= set(row["near_b"])
    return dict(dropped)


def _near_between(
    names: list[str], ids: Mapping[str, list[str]], texts: Mapping[str, list[str]]
) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """(a, b), a < b -> the ids of every prompt of a and prompt of b that are near; one pass over all datasets."""
    owner = [(name, prompt_id) for name in names for prompt_id in ids[name]]
    near: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for i, j in near_pairs([text for name in names for text in texts[name]]):
        (a, id_a), (b, id_b) = owner[i], owner[j]
        near[a, b].append((id_a, id_b))
    return near
