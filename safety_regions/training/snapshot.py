"""Snapshots of a training phase, so that an interrupted one goes on where it was, with the same bits.

The snapshot of the last step outlives a check that fails after training: a new try only repeats the check.

A snapshot holds the weights that are trained, the state of AdamW, and the losses so far; the order of the batches and
the learning rates follow from the number of steps. It is one safetensors file, replaced as a whole.
"""

import json
import time
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.optim import Optimizer

from safety_regions.formats.files import finished_at

SECONDS = 120.0
"""Time between two snapshots: writing one takes about as long as a step."""
STATE = ("step", "exp_avg", "exp_avg_sq")


class Snapshot:
    """The snapshot of a phase in one file.

    Args:
        path: the file.
        plan: identifies the training; a snapshot with another plan is not used.
    """

    def __init__(self, path: Path, plan: str) -> None:
        self.path, self.plan = path, plan
        self._last = time.monotonic()

    @torch.no_grad()
    def restore(self, optimizer: Optimizer) -> list[float]:
        """Load weights and optimiser state, if there is a snapshot of this training; return the losses so far."""
        if not self.path.is_file():
            return []
        with safe_open(self.path, "pt") as file:
            metadata = file.metadata()
            if metadata["plan"] != self.plan:
                return []
            for number, weight in enumerate(_weights(optimizer)):
                weight.copy_(file.get_tensor(f"{number}.weight"))
                optimizer.state[weight] = {
                    key: file.get_tensor(f"{number}.{key}").to(weight.device) for key in STATE
                }
        return json.loads(metadata["losses"])

    def keep(self, optimizer: Optimizer, losses: list[float], last: bool = False) -> None:
        """Write a snapshot after the ``last`` step, and after any other if the one before is not recent."""
        if not last and time.monotonic() - self._last < SECONDS:
            return
        tensors = {
            f"{number}.{key}": value.detach().contiguous()
            for number, weight in enumerate(_weights(optimizer))
            for key, value in {"weight": weight, **optimizer.state[weight]}.items()
        }
        with finished_at(self.path) as temporary:
            save_file(tensors, temporary, {"plan": self.plan, "losses": json.dumps(losses)})
        self._last = time.monotonic()

    def remove(self) -> None:
        """Delete the file."""
        self.path.unlink(missing_ok=True)


def _weights(optimizer: Optimizer) -> list[Tensor]:
    return [weight for group in optimizer.param_groups for weight in group["params"]]
