"""Create synthetic regions and the project's tables of them, counted literally.

The score of a unit is the sum of a value that all datasets share and of separate noise for each dataset. The best
fraction of each address is the region. A refinement removes the best fraction of another score.
"""

from itertools import combinations, permutations
from math import comb

import numpy as np
import pandas as pd
import pyarrow as pa

from safety_regions.formats.contracts import (
    CORES,
    CROSSED,
    IOU,
    MEMBERSHIP,
    OVERLAP,
    POOLS,
    RECOVERY,
    REGION_SIZES,
    RESPONSES,
    SAMPLE_SIZES,
    SHARED_PROMPTS,
)
from safety_regions.formats.parquet import conform
from safety_regions.overlap.membership import Membership

PROJECTIONS = ("q", "k", "v", "o", "gate", "up", "down")
NAMES = ("fraud", "hacking", "weapons", "stalking", "forgery", "theft", "violence", "drugs",
         "harassment", "disinformation", "do-not-answer", "advbench", "catqa", "harmfulqa",
         "beavertails", "forbidden-questions")  # fmt: skip
UTILITY = ("everyday", "lookalikes")
REFINEMENTS = ("raw", "minus-everyday", "minus-arithmetic", "minus-lookalikes")
Regions = dict[tuple[int, str], np.ndarray]


def regions(
    k: int, layers: int, refinement: str = "raw", units: int = 400, fraction: float = 0.05, seed: int = 0
) -> Regions:
    """Return address -> boolean masks, (k, units); the refinement removes a fraction of the shared units."""
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
    """Return boolean masks of the ``kept`` largest scores in each row."""
    order = np.argsort(-scores, axis=1)
    masks = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(masks, order[:, :kept], True, axis=1)
    return masks


def overlap(
    found: Regions,
    names: tuple[str, ...] = NAMES,
    ks: tuple[int, ...] | None = None,
    utility: tuple[str, ...] = (),
) -> pa.Table:
    """Return the overlap table of masks by counting: every combination (of sizes ``ks``); utility sets in pairs only.

    The first masks belong to the sorted names, the last to the utility sets.
    """
    n_names = len(next(iter(found.values()))) - len(utility)
    known = [*sorted(names[:n_names]), *utility]
    rows = []
    for level, layer, projection, addresses in levels(found):
        stack = np.concatenate([found[a] for a in addresses], axis=1)
        for k in ks or range(2, len(known) + 1):
            for chosen in combinations(range(len(known)), k):
                n_utility = sum(i >= n_names for i in chosen)
                if n_utility and k > 2:
                    continue
                labels = {
                    "combination": " & ".join(sorted(known[i] for i in chosen)),
                    "between": ("identification", "mixed", "utility")[n_utility],
                    "k": k,
                    "level": level,
                    "layer": layer,
                    "projection": projection,
                }
                rows.append(labels | counts(stack[list(chosen)]))
    frame = pd.DataFrame(rows, columns=[c.name for c in OVERLAP.columns])
    return conform(pa.Table.from_pandas(frame, schema=OVERLAP.schema, preserve_index=False), OVERLAP)


def framed(table: pa.Table, floor: float = 0.1, ceiling: float = 0.7, seed: int = 0) -> pa.Table:
    """Return an overlap table with floors and ceilings near the given values, as a study with a frame has."""
    frame, rng = table.to_pandas(), np.random.default_rng(seed)
    noise = rng.uniform(-0.02, 0.02, (3, len(frame)))
    pair, there = frame["k"] == 2, frame["iou"].notna()
    frame["floor"] = np.where(there, floor + noise[0], np.nan)
    frame["floor_low"], frame["floor_high"] = frame["floor"] - 0.03, frame["floor"] + 0.03
    frame["half_iou"] = np.where(there, 0.9 * frame["iou"] + noise[1], np.nan)
    frame["ceiling"] = np.where(pair & there, ceiling + noise[2], np.nan)
    frame["half_floor"], frame["floor_marginals"] = frame["floor"], 1.1 * frame["floor"]
    room = frame["ceiling"] - frame["half_floor"]
    frame["normalised"] = ((frame["half_iou"] - frame["half_floor"]) / room).where(room > 0)
    frame["permuted_iou"] = frame["ceiling"] + 0.01
    frame["permuted_p"] = np.where(frame["ceiling"].notna(), rng.choice([0.05, 0.5], len(frame)), np.nan)
    ordinary = frame["half_floor"] + 0.05
    frame["normalised_ordinary"] = ((frame["half_iou"] - ordinary) / (frame["ceiling"] - ordinary)).where(
        pair & (frame["between"] == "identification")
    )
    frame["reliability"] = np.where(pair & there, 0.9 + noise[0], np.nan)
    frame["disattenuated"] = (frame["normalised"] + 0.3).where(pair)
    frame["disattenuated_floor"] = np.where(pair & there, 0.5 + noise[1], np.nan)
    frame["n_smallest"], frame["n_largest"] = rng.integers(80, 90, len(frame)), 100
    frame["shared"] = np.where(pair, rng.uniform(0, 0.1, len(frame)), np.nan)
    return conform(pa.Table.from_pandas(frame, schema=OVERLAP.schema, preserve_index=False), OVERLAP)


def levels(found: Regions):
    """Yield (level, layer, projection, addresses) of the model, each layer and each projection."""
    yield "model", None, None, list(found)
    for layer in sorted({a[0] for a in found}):
        yield "layer", layer, None, [a for a in found if a[0] == layer]
    for projection in PROJECTIONS:
        yield "projection", None, projection, [a for a in found if a[1] == projection]


def counts(masks: np.ndarray) -> dict:
    """Return the numbers of one row; chance is that of independent masks of these sizes."""
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
    """Return the region sizes table of masks."""
    rows = [
        {"backbone": cell[0], "method": cell[1], "selection": cell[2], "refinement": refinement, "name": name,
         "layer": layer, "projection": projection, "n_units": masks.shape[1], "n_selected": int(mask.sum())}
        for (layer, projection), masks in found.items()
        for name, mask in zip(sorted(names[: len(masks)]), masks, strict=True)
    ]  # fmt: skip
    return conform(pa.Table.from_pylist(rows, schema=REGION_SIZES.schema), REGION_SIZES)


def iou(overlaps: dict[tuple[str, str, str, str], pa.Table]) -> pa.Table:
    """Return the gathered table, from (backbone, method, selection, refinement) -> overlap table."""
    frames = [
        t.to_pandas().assign(backbone=b, method=m, selection=s, refinement=r)
        for (b, m, s, r), t in overlaps.items()
    ]
    frame = pd.concat(frames, ignore_index=True)[[c.name for c in IOU.columns]]
    return conform(pa.Table.from_pandas(frame, schema=IOU.schema, preserve_index=False), IOU)


def gathered(
    cells: list[tuple[str, str, str, str]], k: int, with_frames: bool = True
) -> tuple[dict, pa.Table, pa.Table]:
    """Return cell -> overlap table, the gathered overlaps and the sizes, of small regions that differ in every cell.

    With frames, the tables also have pairs with utility sets, floors and ceilings.
    """
    overlaps, measured, utility = {}, [], UTILITY if with_frames else ()
    for seed, cell in enumerate(cells):
        found = regions(k + len(utility), 1, cell[-1], units=100, seed=seed)
        table = overlap(found, utility=utility)
        overlaps[cell] = framed(table, seed=seed) if with_frames else table
        measured.append(sizes({a: masks[:k] for a, masks in found.items()}, cell[-1], cell=cell[:3]))
    return overlaps, iou(overlaps), pa.concat_tables(measured)


def responses(
    dataset: str, rate: float, identify: int = 40, evaluate: int = 12, seed: int = 0, prompt: str = "?"
) -> pa.Table:
    """Return a responses table in which each answer refuses with probability ``rate``."""
    rng = np.random.default_rng([seed, len(dataset), ord(dataset[0])])
    rows = [
        {"prompt_id": f"{dataset}/{i}", "dataset": dataset, "split": "identify" if i < identify else "evaluate",
         "half": 1 + i % 2, "prompt": prompt, "response": prompt, "origin": "backbone",
         "refused": bool(rng.random() < rate), "n_tokens": 5, "stop": "eos"}
        for i in range(identify + evaluate)
    ]  # fmt: skip
    return conform(pa.Table.from_pylist(rows, schema=RESPONSES.schema), RESPONSES)


def shared(hits: dict[tuple[str, str], tuple[int, int]], names: tuple[str, ...]) -> pa.Table:
    """Return a shared prompts table from (a, b) -> (exact, near); pairs that are not given share no prompt."""
    rows = []
    for a, b in combinations(sorted(names), 2):
        exact, near = hits.get((a, b), (0, 0))
        ids = [f"{{}}/{i}" for i in range(near)]
        rows.append({"a": a, "b": b, "n_a": 100, "n_b": 120, "n_exact": exact, "n_near": near,
                     "near_a": [i.format(a) for i in ids], "near_b": [i.format(b) for i in ids]})  # fmt: skip
    return conform(pa.Table.from_pylist(rows, schema=SHARED_PROMPTS.schema), SHARED_PROMPTS)


def membership(found: Regions, names: tuple[str, ...] = NAMES) -> Membership:
    """Return the membership table of masks."""
    n_names = len(next(iter(found.values())))
    rows = []
    for (layer, projection), masks in found.items():
        patterns = (masks * (1 << np.arange(n_names))[:, None]).sum(0)
        for pattern, count in zip(*np.unique(patterns, return_counts=True), strict=True):
            rows.append({"layer": layer, "projection": projection, "pattern": pattern, "count": count})
    n_units = {f"layers.{layer}.{name}": masks.shape[1] for (layer, name), masks in found.items()}
    table = pa.Table.from_pandas(pd.DataFrame(rows), schema=MEMBERSHIP.schema, preserve_index=False)
    return Membership(table, {"names": sorted(names[:n_names]), "n_units": n_units, "granularity": "weight"})


def layer_membership(masks: np.ndarray) -> Membership:
    """Return the membership table of regions of whole layers; masks are (sets, layers)."""
    patterns = (masks * (1 << np.arange(len(masks)))[:, None]).sum(0)
    values, found = np.unique(patterns, return_counts=True)
    rows = {"layer": None, "projection": None, "pattern": values, "count": found}
    table = pa.Table.from_pandas(pd.DataFrame(rows), schema=MEMBERSHIP.schema, preserve_index=False)
    names = sorted(NAMES[: len(masks)])
    return Membership(table, {"names": names, "n_units": {"layers": masks.shape[1]}, "granularity": "layer"})


def _pair(iou: float | None, n_a: int = 100, n_b: int = 100) -> dict:
    size = 1000
    both = 0 if iou is None else round(2 * size * iou / (1 + iou))
    either = 0 if iou is None else 2 * size - both
    return {"n_a": n_a, "n_b": n_b, "intersection": both, "union": either, "iou": iou,
            "smallest": size, "largest": size, "chance": None if iou is None else 0.026}  # fmt: skip


def pools(
    names: tuple[str, ...], orders: int = 2, iou: float | None = 0.5, seed: int = 0, shuffled: bool = True
) -> pa.Table:
    """Return a pools table whose IoUs rise with k from about ``iou``; all are undefined if it is None.

    Those of ``shuffled`` sets are half as large, or were not measured.
    """
    rng, rows = np.random.default_rng(seed), []
    for number in range(1, orders + 1):
        order = [str(name) for name in rng.permutation(names)]
        for k in range(1, len(order)):
            others = {"next": order[: k + 1], "rest": order[k:], "all": order}
            for shift, (against, b) in enumerate(others.items()):
                value = (
                    None
                    if iou is None
                    else min(1.0, iou + 0.4 * k / len(order) - 0.1 * shift + 0.03 * rng.random())
                )
                labels = {"order": number, "k": k, "against": against}
                labels |= {"a": "+".join(sorted(order[:k])), "b": "+".join(sorted(b))}
                labels |= {"nested": False, "shuffled": value and (value / 2 if shuffled else None)}
                rows.append(labels | _pair(value, 100 * k, 100 * len(b)))
    return pa.Table.from_pylist(rows, schema=POOLS.schema)


def cores(n: int = 4, shuffled: bool = True) -> pa.Table:
    """Return a table of cores of n sets that keep 0.8 of a region of 100 units, with two other groups of two draws."""
    retained = {"sets": 0.8, "regrouped": 0.9, **({"shuffled": 0.3} if shuffled else {})}
    rows = [
        {
            **{
                "kind": kind,
                "draw": draw,
                "k": k,
                "subsets": comb(n, k),
                "retained": share if k > 1 else None,
            },
            **_ranged("intersection", 100 * share ** (k - 1) + draw),
            **_ranged("union", 100 + 20 * (k - 1)),
            **_ranged("iou", share ** (k - 1)),
            **{"chance_intersection": 100 * 0.05 ** (k - 1), "chance_union": 100.0 * k},
        }
        for kind, share in retained.items()
        for draw in ([0] if kind == "sets" else [1, 2])
        for k in range(1, n + 1)
    ]
    return pa.Table.from_pylist(rows, schema=CORES.schema)


def _ranged(name: str, value: float) -> dict[str, float]:
    return {name: value, f"{name}_low": 0.9 * value, f"{name}_high": 1.1 * value}


def sample_sizes(
    names: tuple[str, ...],
    sizes: tuple[int, ...] = (10, 25, 50, 100),
    blocks: int = 2,
    iou: float | None = 0.2,
    shuffled: bool = True,
) -> pa.Table:
    """Return a sample sizes table whose IoUs rise with n from about ``iou``; two blocks fit up to half of the top n.

    Those of ``shuffled`` sets are half of ``iou``, or were not measured.
    """
    rng, rows = np.random.default_rng(1), []
    for step, n in enumerate(sizes):
        for d in names if 2 * n <= max(sizes) and blocks > 1 else ():
            value = None if iou is None else iou + 0.1 * step + 0.1 + 0.05 * rng.random()
            rows.append({"n": n, "pair": "blocks", "a": f"{d}@{n}", "b": f"{d}@{n}x2"} | _pair(value, n, n))
        for a, b in combinations(names, 2):
            value = None if iou is None else iou + 0.05 * step + 0.05 * rng.random()
            rows.append({"n": n, "pair": "sets", "a": f"{a}@{n}", "b": f"{b}@{n}"} | _pair(value, n, n))
        for a, b in combinations(names, 2) if shuffled else ():
            value = None if iou is None else iou / 2
            rows.append(
                {"n": n, "pair": "shuffled", "a": f"{a}@{n}~1", "b": f"{b}@{n}~1"} | _pair(value, n, n)
            )
    return pa.Table.from_pylist(rows, schema=SAMPLE_SIZES.schema)


def crossed(names: tuple[str, ...], prompts: float = 0.3, responses: float = 0.6) -> pa.Table:
    """Return a table of crossed responses with these IoUs for the same prompts and for the same responses."""
    rows = [
        {"same": same, "a": a, "b": b} | _pair(iou, 100, 100)
        for one, two in permutations(names, 2)
        for same, a, b, iou in (
            ("prompts", one, f"{one}^{two}", prompts),
            ("responses", one, f"{two}^{one}", responses),
        )
    ]
    return pa.Table.from_pylist(rows, schema=CROSSED.schema)


def recovery(
    aurocs: dict[str, float | None],
    names: tuple[str, ...] = ("fraud", "hacking"),
    refinements: tuple[str, ...] = REFINEMENTS[:2],
    selections: tuple[str, ...] = ("row-0.05",),
    truths: dict[str, float] | None = None,
    pooled: bool = False,
) -> pa.Table:
    """Return a recovery table from method -> approximate AUROC (None for an adapter's); sets differ slightly.

    ``truths``: organism whose planted region is recovered -> what is added to the AUROCs.
    """
    rng, rows = np.random.default_rng(2), []
    truths = truths or {"organism": 0.0}
    cells = [
        (t, m, s, r, n)
        for t in truths
        for m in aurocs
        for s in selections
        for r in refinements
        for n in names
    ]
    noise = {(m, n): rng.uniform(-0.01, 0.01) for m in aurocs for n in names}
    for t, m, s, r, n in cells:
        selected, truth, weights = 5000 if r == "raw" else 3000, 10000, 100000
        area = None if aurocs[m] is None else aurocs[m] + truths[t] + noise[m, n]
        both = int(selected * (0.1 + (0 if area is None else max(0, area - 0.5))))
        rows.append(
            {"truth": t, "method": m, "granularity": "weight", "name": n, "selection": s, "refinement": r,
             "n_weights": weights, "n_truth": truth, "n_selected": selected, "intersection": both,
             "precision": both / selected, "recall": both / truth, "iou": both / (selected + truth - both),
             "chance": 0.034, "prevalence": 0.1,
             "auroc": area, "chance_auroc": None if area is None else 0.51, "auroc_within": None,
             "average_precision": None if area is None else area / 2,
             "chance_average_precision": None if area is None else 0.11,
             "pooled_auroc": area + 0.05 if pooled and area is not None else None,
             "pooled_average_precision": area / 3 if pooled and area is not None else None,
             "pooled_chance_auroc": 0.5 if pooled and area is not None else None,
             "pooled_chance_average_precision": 0.2 if pooled and area is not None else None}
        )  # fmt: skip
    return pa.Table.from_pylist(rows, schema=RECOVERY.schema)
