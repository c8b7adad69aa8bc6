"""Check the key ``adapters`` of a config (the source of each backbone's adapter) before any job. Torch-free."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from safety_regions.errors import explain, unknown
from safety_regions.study.small_files import AN_OBJECT, fault_of, read_object

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
        for problem in _given_problems(given_files(plan, name), backbones.get(name, {})):
            yield explain(f"{where}: paths: {name}", *problem)
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


def _given_problems(files: list[str], card: Mapping) -> Iterator[tuple[str, ...]]:
    """What is wrong with the files of a given adapter: found, expected and perhaps a hint."""
    missing = [file for file in files if not Path(file).is_file()]
    if missing:
        yield f"no file {missing[0]}", "an adapter in peft's format"
        return
    path = next(Path(file) for file in files if Path(file).name == CONFIG)
    if fault_of(path):
        yield f"{fault_of(path)} in {path.parent}", AN_OBJECT
        return
    config = read_object(path)
    for key in ("r", "lora_alpha"):
        if not isinstance(config.get(key), int | float):
            yield f"no number `{key}` in {path}", "an adapter in peft's format"
    base = config.get("base_model_name_or_path")
    if "repo" in card and _is_another(base, card["repo"]):
        hint = (
            f"the adapter of this backbone; or correct the entry in {path} if '{base}' has the same weights"
        )
        yield f"an adapter of '{base}'", f"an adapter of '{card['repo']}'", hint


def _is_another(base: object, repo: str) -> bool:
    """Whether a base model is named like one on the Hub, and not like ``repo`` (another owner may have a copy)."""
    named = isinstance(base, str) and re.fullmatch(r"[\w.-]+/[\w.-]+", base)
    return bool(named) and base.split("/")[1].lower() != repo.split("/")[-1].lower()


def rank_of(plan: Mapping, backbone: str) -> int | None:
    """The rank of a backbone's adapter, trained or given; None if a given one does not tell it."""
    if backbone not in plan["paths"]:
        return plan["rank"]
    path = Path(plan["paths"][backbone]) / CONFIG
    rank = None if fault_of(path) else read_object(path).get("r")
    return rank if isinstance(rank, int) else None


def smallest_side(sizes: Mapping | None) -> int | None:
    """The smallest input or output size of an organism's linear layers; None for a checkpoint (sizes unknown here)."""
    if sizes is None:
        return None
    heads = (sizes[key] * sizes["head_dim"] for key in ("heads", "kv_heads"))
    return min(sizes["hidden_size"], sizes["intermediate_size"], *heads)
