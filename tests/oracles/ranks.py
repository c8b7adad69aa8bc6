"""Define ActSVD's spaces literally, in float64: the singular value decomposition of all outputs W X at once."""

import copy

import numpy as np
import torch

from safety_regions.model.backbone import Backbone
from safety_regions.model.batches import Sample
from safety_regions.units.addresses import PROJECTIONS
from tests.oracles.weights import module_name, rows, weights_of


def left_spaces(backbone: Backbone, samples: list[Sample]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return address -> left singular vectors (out, r) and values (r,) of W X over the response tokens."""
    return spaces_of(copy.deepcopy(backbone.model).double(), weights_of(backbone), samples)


def spaces_of(
    model: torch.nn.Module, weights: dict[str, torch.Tensor], samples: list[Sample]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return what `left_spaces` does, for the inputs that a model in float64 gives to other weights."""
    inputs = {f"layers.{i}.{p}": [] for i in range(model.config.num_hidden_layers) for p in PROJECTIONS}
    for sample in samples:
        for where, seen in inputs_of(model, sample.ids).items():
            inputs[where].append(seen[sample.prompt_length :])
    found = {}
    for where, weight in weights.items():
        x = torch.cat(inputs[where]).T.numpy()
        u, s, _ = np.linalg.svd(weight.numpy() @ x, full_matrices=False)
        found[where] = u, s
    return found


def sequential_spaces(
    backbone: Backbone, samples: list[Sample], fraction: float
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the spaces of each layer where the best ranks of all earlier layers are removed from the weights."""
    model, weights, found = copy.deepcopy(backbone.model).double(), weights_of(backbone), {}
    for layer in range(model.config.num_hidden_layers):
        spaces = spaces_of(model, weights, samples)
        for projection in PROJECTIONS:
            where = f"layers.{layer}.{projection}"
            found[where] = u, _ = spaces[where]
            matrix = rows(
                model, projection, model.get_submodule(module_name(model, layer, projection)).weight
            )
            best = u[:, : int(fraction * min(matrix.shape) + 1e-9)]
            with torch.no_grad():
                matrix -= torch.from_numpy(best @ best.T) @ matrix
    return found


def inputs_of(model: torch.nn.Module, ids: list[int]) -> dict[str, torch.Tensor]:
    """Return address -> inputs (tokens, in) of each projection in a pass over one sequence."""
    seen: dict[str, torch.Tensor] = {}
    handles = []
    for i in range(model.config.num_hidden_layers):
        for projection in PROJECTIONS:
            module, where = model.get_submodule(module_name(model, i, projection)), f"layers.{i}.{projection}"
            handles.append(
                module.register_forward_pre_hook(
                    lambda _m, args, where=where: seen.__setitem__(where, args[0][0])
                )
            )
    with torch.no_grad():
        model(input_ids=torch.tensor([ids]), use_cache=False)
    for handle in handles:
        handle.remove()
    return seen


def projector(basis: np.ndarray) -> np.ndarray:
    """Return the matrix that projects on the span of independent columns."""
    return basis @ np.linalg.pinv(basis)


def soft_iou(a: np.ndarray, b: np.ndarray) -> float:
    """Return tr(P_A P_B) / (i + j - tr(P_A P_B)) for the spans of the columns of two matrices."""
    p, q = projector(a), projector(b)
    shared = np.trace(p @ q)
    return shared / (np.trace(p) + np.trace(q) - shared)


def refined_space(safety: np.ndarray, utility: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return an orthonormal basis of the range of (I - P_u) P_s W, from its singular value decomposition."""
    removed = (np.eye(len(weight)) - projector(utility)) @ projector(safety) @ weight
    u, s, _ = np.linalg.svd(removed)
    return u[:, : int((s > 1e-10 * s[0]).sum())]
