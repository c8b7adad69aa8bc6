"""Read the factors of an adapter, by the projection whose weights they change, without torch.

`safety_regions.formats.expand` uses them to convert a region of A and B to weights.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, deserialize

from safety_regions.errors import StudyError, explain
from safety_regions.families import Family, families
from safety_regions.formats.expand import Factor
from safety_regions.study.adapters import WEIGHTS
from safety_regions.units.addresses import address, parse_address

# How numpy reads a safetensors dtype; it has no bfloat16, whose bits are the upper half of a float32's.
READ = {
    "F32": lambda data: np.frombuffer(data, np.float32),
    "F16": lambda data: np.frombuffer(data, np.float16).astype(np.float32),
    "BF16": lambda data: (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32),
}


def read_factors(
    files: Sequence[str | Path], family: str, shapes: Mapping[str, Sequence[int]]
) -> dict[str, Factor]:
    """Return projection address -> the factors of its adapter, float32; projections without factors are left out.

    Args:
        files: files of an adapter in peft's format; empty if there is no adapter.
        family: family of the backbone, for the names of its layers.
        shapes: address -> (out, in) of every projection; used to split B if projections are fused.

    Raises:
        StudyError: the weights cannot be read.
    """
    weights = [Path(file) for file in files if Path(file).name == WEIGHTS]
    if not weights:
        return {}
    tensors, table = _read(weights[0]), families()[family]
    found = {where: _factor(tensors, table, where, shapes) for where in shapes}
    return {where: factor for where, factor in found.items() if factor is not None}


def _factor(
    tensors: Mapping[str, np.ndarray], table: Family, where: str, shapes: Mapping[str, Sequence[int]]
) -> Factor | None:
    layer, projection = parse_address(where)
    path, fused = next((path, names) for path, names in table.modules.items() if projection in names)
    start = sum(shapes[address(layer, name)][0] for name in fused[: fused.index(projection)])
    for blocks in table.layers.values():
        name = f"base_model.model.{blocks}.{layer}.{path}.lora_"
        if f"{name}A.weight" in tensors:
            rows = slice(start, start + shapes[where][0])
            a, b = tensors[f"{name}A.weight"], tensors[f"{name}B.weight"]
            return Factor(f"{address(layer, fused[0])}.A", a, b[rows])
    return None


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        entries = deserialize(path.read_bytes())
        return {name: READ[e["dtype"]](e["data"]).reshape(e["shape"]) for name, e in entries}
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        found = f"weights that cannot be read ({type(error).__name__})"
        raise StudyError(explain(path, found, f"factors in {', '.join(READ)}")) from None
