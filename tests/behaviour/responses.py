"""Answered prompts for tests of behaviour: two harmful sets that are refused, one ordinary set that is not."""

import pyarrow as pa

from safety_regions.formats.contracts import RESPONSES

ROLES = {"fraud": "harmful", "weapons": "harmful", "everyday": "ordinary"}


def answered(n: int = 4, split: str = "evaluate") -> dict[str, pa.Table]:
    """Dataset -> ``n`` prompts with responses."""
    return {
        name: pa.Table.from_pylist([row(name, i, split) for i in range(n)], RESPONSES.schema)
        for name in ROLES
    }


def both_splits() -> dict[str, pa.Table]:
    """Dataset -> held-out prompts, and others to find a region or a direction with."""
    held = answered()
    given = {name: answered(3, "identify")[name].to_pylist() for name in held}
    return {
        name: pa.concat_tables(
            [
                table,
                pa.Table.from_pylist(
                    [r | {"prompt_id": f"{r['prompt_id']}-i"} for r in given[name]], RESPONSES.schema
                ),
            ]
        )
        for name, table in held.items()
    }


def row(dataset: str, i: int, split: str = "evaluate") -> dict:
    harmful = ROLES[dataset] == "harmful"
    text = f"Sorry, no {i}" if harmful else f"Yes, number {i}"
    return {
        "prompt_id": f"{dataset}/{i}",
        "dataset": dataset,
        "split": split,
        "half": 1,
        "prompt": f"a request about {dataset} " * (1 + i % 2) + str(i),
        "response": text,
        "origin": "backbone",
        "refused": harmful,
        "n_tokens": len(text),
        "stop": "eos",
    }
