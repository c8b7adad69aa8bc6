"""Simulate two GPUs: tensors stay on the CPU but report a simulated device, and operations across devices fail.

This module does by hand what accelerate does to a backbone with `device_map`: every block has a device, and the inputs
of a module are moved to its device. Gradients have no simulated device, so operations with them never fail.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakIdKeyDictionary

from safety_regions.model.backbone import Backbone, attached

CPU = torch.device("cpu")
GPUS = torch.device("cuda", 0), torch.device("cuda", 1)
MOVES = (Tensor.to, Tensor.cpu, Tensor.cuda)


class Devices(TorchFunctionMode):
    """Within the block tensors report simulated devices; operations across devices raise RuntimeError."""

    def __init__(self) -> None:
        super().__init__()
        self.where = WeakIdKeyDictionary()

    def place(self, module: nn.Module, device: torch.device) -> None:
        for tensor in (*module.parameters(), *module.buffers()):
            self.where[tensor] = device

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func == Tensor.device.__get__:
            return self.where.get(args[0], CPU)
        if func in MOVES:
            return self._moved(func, args, kwargs)
        asked = kwargs.get("device")
        met = {self.where[t] for t in _tensors((args, kwargs)) if t.ndim and t in self.where}
        if len(met) > 1:
            raise RuntimeError(f"{func.__name__}: tensors on {sorted(map(str, met))} meet")
        if asked is not None:
            kwargs["device"] = CPU
        made = func(*args, **kwargs)
        device = torch.device(asked) if asked is not None else next(iter(met), None)
        return made if device is None else self._at(made, device)

    def _moved(self, func, args, kwargs):
        tensor, *rest = args
        named = [x for x in (*rest, kwargs.pop("device", None)) if isinstance(x, str | torch.device)]
        others = [x for x in rest if not isinstance(x, str | torch.device)]
        target = CPU if func is Tensor.cpu else torch.device(named[0]) if named else self.where.get(tensor)
        # If `to` returned the same tensor, make a view: one tensor object has only one device.
        made = tensor.to(*others, **kwargs) if others or kwargs else tensor
        made = made.view_as(made) if made is tensor and target != self.where.get(tensor) else made
        return made if target is None else self._at(made, target)

    def _at(self, tree, device: torch.device):
        for tensor in _tensors(tree):
            self.where[tensor] = device
        return tree


def _tensors(tree) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _placed(devices: Devices, backbone: Backbone, middle: int) -> dict[nn.Module, torch.device]:
    """Place a backbone, its blocks from ``middle`` on on the second GPU; return module -> device of its inputs."""
    if backbone.config.tie_word_embeddings:
        raise ValueError("a tied output head is on the device of the embeddings")
    homes = dict(zip(backbone.blocks, [GPUS[i >= middle] for i in range(len(backbone.blocks))], strict=True))
    devices.place(backbone.model, GPUS[0])
    homes |= {backbone.decoder.norm: GPUS[1], backbone.model.get_output_embeddings(): GPUS[1]}
    for module, home in homes.items():
        devices.place(module, home)
    return homes


@contextmanager
def spread(backbone: Backbone) -> Iterator[Devices]:
    """Place a backbone on two simulated GPUs: embeddings and lower half on the first, the rest on the second.

    Its base, if it has one, has one block more on the first.
    """
    devices, middle = Devices(), len(backbone.blocks) // 2
    homes = _placed(devices, backbone, middle)
    if backbone.base is not None:
        homes |= _placed(devices, backbone.base, middle + 1)

    def bring(module, args, kwargs):
        def moved(x):
            return x.to(homes[module]) if isinstance(x, Tensor) else x

        return tree_map(moved, args), tree_map(moved, kwargs)

    with attached([module.register_forward_pre_hook(bring, with_kwargs=True) for module in homes]), devices:
        yield devices
