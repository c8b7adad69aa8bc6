"""Check the key ``adapters`` of a config (the source of each backbone's adapter) before any job. Torch-free."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from safety_regions.errors import explain, unknown

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
ADAPTER_FILES = (WEIGHTS, CONFIG)


def teachers(plan: Mapping) -> tuple[str, ...]:
    """Datasets that train the adapters, harmful ones first."""
    return tuple(dict.fromkeys([*plan["harmful"], *plan["helpful"]]))


def given_files(plan: Mapping, backbone: str) -> list[str]:
    """Files of an adapter given in the config; an empty list if the workflow trains it."""
    path = plan["paths"].get(backbone)
    return [] if path is None else [str(Path(path) / file) for file in ADAPTER_FILES]


def plan_problems(plan: Mapping, backbones: Mapping[str, dict], where: str) -> Iterator[str]:
    """Reasons why a backbone of the study would have no adapter, one sentence each.

    Args:
        plan: the value of ``adapters``, with defaults filled in.
        backbones: the study's backbones, name -> card.
        where: location of the key, for messages.
    """
    for name in plan["paths"]:
        if name not in backbones:
            yield unknown(f"{where}: paths", "backbone", name, backbones)
        missing = [file for file in given_files(plan, name) if not Path(file).is_file()]
        if missing:
            yield explain(f"{where}: paths: {name}", f"no file {missing[0]}", "an adapter in peft's format")
    trained = {name: card for name, card in backbones.items() if name not in plan["paths"]}
    if trained and not plan["harmful"]:
        found = f"no dataset, and no adapter for {', '.join(trained)} in `paths`"
        yield explain(f"{where}: harmful", found, "datasets whose refusals train the adapter that is scored")
    for name, card in trained.items():
        side = smallest_side(card.get("architecture"))
        if side is not None and plan["rank"] > side:
            yield explain(
                f"{where}: rank",
                str(plan["rank"]),
                f"at most {side}, the smallest weight dimension of '{name}'",
            )


def smallest_side(sizes: Mapping | None) -> int | None:
    """The smallest input or output size of an organism's linear layers; None for a checkpoint (sizes unknown here)."""
    if sizes is None:
        return None
    heads = (sizes[key] * sizes["head_dim"] for key in ("heads", "kv_heads"))
    return min(sizes["hidden_size"], sizes["intermediate_size"], *heads)
