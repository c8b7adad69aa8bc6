"""The tables of behaviour of one cell of the grid, from the measurements of its regions."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa

from safety_regions.behaviour.effects import ARM, Effects, effects_of_cell, wilson
from safety_regions.behaviour.transfer import transfer_of_cell, transfer_pairs
from safety_regions.formats.contracts import (
    ABLATED,
    ABLATION,
    EFFECTS,
    OVERLAP,
    TRANSFER,
    TRANSFER_PAIRS,
    Contract,
)
from safety_regions.formats.parquet import iter_rows, read_metadata, read_table
from safety_regions.study.operation_shelf import operation_cards
from safety_regions.units.behaviour import RATES

Cell = Mapping[str, str]


def tables_of_cell(
    cell: Cell,
    arms: Mapping[str, str | Path],
    overlap: str | Path | None,
    judged: Sequence[str | Path] = (),
) -> dict[Contract, pa.Table]:
    """`ABLATION`, `EFFECTS`, `TRANSFER` and `TRANSFER_PAIRS` tables of a cell; the last two need two sets.

    Args:
        cell: backbone, method, selection and refinement.
        arms: identification set -> its `ABLATED` table.
        judged: `ABLATED` tables of judges, in any order; their metadata name the set.
        overlap: the `OVERLAP` table of the cell; None for a single region.
    """
    into_base = [name for name, card in operation_cards().items() if card["into_base"]]
    means, named = [], {}
    judged_of = {name: [path for path in judged if read_metadata(path)["name"] == name] for name in arms}
    for name, path in arms.items():
        paths = [path, *judged_of[name]]
        measured = pa.concat_tables(read_table(p, ABLATED) for p in paths).to_pandas()
        roles = read_metadata(path)["roles"]
        means += [row | {"name": name} for row in arm_means(measured, roles)]
        named[name] = Effects(measured, roles, into_base)
    rows = {ABLATION: means, EFFECTS: effects_of_cell(named), TRANSFER: [], TRANSFER_PAIRS: []}
    if overlap and len(named) > 1:
        ious = pairwise_ious(overlap)
        rows |= {TRANSFER: transfer_of_cell(named, ious), TRANSFER_PAIRS: transfer_pairs(named, ious)}
    return {
        contract: pa.Table.from_pylist([dict(cell) | row for row in found], contract.schema)
        for contract, found in rows.items()
    }


def arm_means(measured: pd.DataFrame, roles: Mapping[str, str]) -> list[dict]:
    """The mean of every measure of every arm over the prompts of a dataset or a role; rates with intervals."""
    columns = [*ARM, "n_weights", "n_changed", "measure", "evaluated"]
    frame = measured.astype(dict.fromkeys(("operation", "control", "of", "measure", "evaluated"), str))
    both = pd.concat([frame, frame.assign(evaluated=frame["evaluated"].map(roles))])
    found = both.groupby(columns, sort=False)["value"].agg(["mean", "size"]).reset_index()
    rows = found.rename(columns={"mean": "value", "size": "n"}).to_dict("records")
    for row in rows:
        if row["measure"] in RATES:
            _, row["low"], row["high"] = wilson(round(row["value"] * row["n"]), row["n"])
    return rows


def pairwise_ious(overlap: str | Path) -> dict[tuple[str, str], float | None]:
    """(a, b) in sorted order -> IoU of their regions over the whole model."""
    found = {}
    for rows in iter_rows(overlap, OVERLAP, {"level": "model", "k": 2}):
        found |= {
            tuple(row["combination"].split(" & ")): row["iou"]
            for row in rows.select(["combination", "iou"]).to_pylist()
        }
    return found
