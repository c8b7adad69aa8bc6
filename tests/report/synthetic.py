"""Synthetic regions and the tables of the project that follow from them, counted literally.

Units of an address have a score that all datasets share plus noise of each dataset's own; the best fraction of
each address is the region. A refinement takes away the best fraction of another score.
"""

from itertools import combinations

import numpy as np
import pandas as pd
import pyarrow as pa

from safety_regions.tables import IOU, OVERLAP, REGION_SIZES, RESPONSES, SHARED_PROMPTS, conform

PROJECTIONS = ("q", "k", "v", "o", "gate", "up", "down")
NAMES = ("fraud", "hacking", "weapons", "stalking", "forgery", "theft", "violence", "drugs",
         "harassment", "disinformation", "do-not-answer", "advbench", "catqa", "harmfulqa",
         "beavertails", "forbidden-questions")  # fmt: skip
REFINEMENTS = ("raw", "minus-everyday", "minus-arithmetic", "minus-lookalikes")
Regions = dict[tuple[int, str], np.ndarray]


def regions(
    k: int, layers: int, refinement: str = "raw", units: int = 400, fraction: float = 0.05, seed: int = 0
) -> Regions:
    """Address -> boolean masks, (k, units); the refinement removes a share of the shared units."""
    rng = np.random.default_rng([seed, k, layers])
    kept = max(1, int(fraction * units))
    found = {}
    for layer in range(layers):
        for projection in PROJECTIONS:
            shared, noise = rng.normal(size=units), rng.normal(size=(k, units))
            utility = {r: shared + rng.normal(size=units) for r in REFINEMENTS[1:]}
            alike = 0.4 + 0.8 * layer / layers
            masks = top(alike * shared + noise * np.linspace(0.6, 1.4, k)[:, None], kept)
            if refinement != "raw":
                masks &= ~top(utility[refinement][None], 2 * kept)
            found[layer, projection] = masks
    return found


def top(scores: np.ndarray, kept: int) -> np.ndarray:
    """Boolean masks of the ``kept`` largest scores in each row."""
    order = np.argsort(-scores, axis=1)
    masks = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(masks, order[:, :kept], True, axis=1)
    return masks


def overlap(found: Regions, names: tuple[str, ...] = NAMES, ks: tuple[int, ...] | None = None) -> pa.Table:
    """The overlap table of masks, every combination (of the sizes ``ks``) by counting."""
    masks = next(iter(found.values()))
    names = tuple(sorted(names[: len(masks)]))
    rows = []
    for level, layer, projection, addresses in levels(found):
        stack = np.concatenate([found[a] for a in addresses], axis=1)
        for k in ks or range(2, len(names) + 1):
            for chosen in combinations(range(len(names)), k):
                row = counts(stack[list(chosen)])
                combination = " & ".join(names[i] for i in chosen)
                rows.append(
                    {
                        "combination": combination,
                        "k": k,
                        "level": level,
                        "layer": layer,
                        "projection": projection,
                    }
                    | row
                )
    frame = pd.DataFrame(rows, columns=[c.name for c in OVERLAP.columns])
    return conform(pa.Table.from_pandas(frame, schema=OVERLAP.schema, preserve_index=False), OVERLAP)


def levels(found: Regions):
    """(level, layer, projection, addresses) of the model, each layer and each projection."""
    yield "model", None, None, list(found)
    for layer in sorted({a[0] for a in found}):
        yield "layer", layer, None, [a for a in found if a[0] == layer]
    for projection in PROJECTIONS:
        yield "projection", None, projection, [a for a in found if a[1] == projection]


def counts(masks: np.ndarray) -> dict:
    """One row's numbers; chance is that of independent masks of these sizes."""
    sizes, units = masks.sum(1), masks.shape[1]
    intersection, union = int(masks.all(0).sum()), int(masks.any(0).sum())
    share = sizes / units
    either = 1 - np.prod(1 - share)
    return {
        "intersection": intersection,
        "union": union,
        "iou": intersection / union if union else None,
        "smallest": int(sizes.min()),
        "largest": int(sizes.max()),
        "chance": float(np.prod(share) / either) if either else None,
    }


def sizes(
    found: Regions,
    refinement: str,
    names: tuple[str, ...] = NAMES,
    cell: tuple[str, str, str] = ("organism", "snip", "row-0.05"),
) -> pa.Table:
    """The region sizes table of masks."""
    rows = [
        {"backbone": cell[0], "method": cell[1], "selection": cell[2], "refinement": refinement, "name": name,
         "layer": layer, "projection": projection, "n_units": masks.shape[1], "n_selected": int(mask.sum())}
        for (layer, projection), masks in found.items()
        for name, mask in zip(sorted(names[: len(masks)]), masks, strict=True)
    ]  # fmt: skip
    return conform(pa.Table.from_pylist(rows, schema=REGION_SIZES.schema), REGION_SIZES)


def iou(overlaps: dict[tuple[str, str, str, str], pa.Table]) -> pa.Table:
    """The gathered table: (backbone, method, selection, refinement) -> its overlap table."""
    frames = [
        t.to_pandas().assign(backbone=b, method=m, selection=s, refinement=r)
        for (b, m, s, r), t in overlaps.items()
    ]
    frame = pd.concat(frames, ignore_index=True)[[c.name for c in IOU.columns]]
    return conform(pa.Table.from_pandas(frame, schema=IOU.schema, preserve_index=False), IOU)


def responses(
    dataset: str, rate: float, identify: int = 40, evaluate: int = 12, seed: int = 0, prompt: str = "?"
) -> pa.Table:
    """A responses table in which about ``rate`` of the answers refuse."""
    rng = np.random.default_rng([seed, len(dataset), ord(dataset[0])])
    rows = [
        {"prompt_id": f"{dataset}/{i}", "dataset": dataset, "split": "identify" if i < identify else "evaluate",
         "half": 1 + i % 2, "prompt": prompt, "response": prompt, "origin": "backbone",
         "refused": bool(rng.random() < rate), "n_tokens": 5, "stop": "eos"}
        for i in range(identify + evaluate)
    ]  # fmt: skip
    return conform(pa.Table.from_pylist(rows, schema=RESPONSES.schema), RESPONSES)


def shared(hits: dict[tuple[str, str], tuple[int, int]], names: tuple[str, ...]) -> pa.Table:
    """A shared prompts table: (a, b) -> (exact, near) for pairs with hits; every other pair has none."""
    rows = []
    for a, b in combinations(sorted(names), 2):
        exact, near = hits.get((a, b), (0, 0))
        ids = [f"{{}}/{i}" for i in range(near)]
        rows.append({"a": a, "b": b, "n_a": 100, "n_b": 120, "n_exact": exact, "n_near": near,
                     "near_a": [i.format(a) for i in ids], "near_b": [i.format(b) for i in ids]})  # fmt: skip
    return conform(pa.Table.from_pylist(rows, schema=SHARED_PROMPTS.schema), SHARED_PROMPTS)
