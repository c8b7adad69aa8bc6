"""A constraint job: fine-tune a model with a region frozen, rewound or trained alone, and with controls in its place.

===========  ===========================================================================================================
arm          what trains
===========  ===========================================================================================================
``free``     all decoder weights
``freeze``   all but the region
``only``     the region alone (the operation of SN-Tune); the same as to freeze its complement
``rewind``   all; afterwards the region is set back. Wei et al.'s freezing (arXiv 2402.05162, ``rewind_ft_model.py``)
a name-dose  all; afterwards an operation restores the model, such as ``safelora-0.35``: in the region or a control, or
             in all weights
===========  ===========================================================================================================

With ``freeze`` the other weights can compensate while they train, with ``rewind`` they cannot. All arms have the same
data in the same order. Finished arms are kept in a journal.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from safety_regions.behaviour import controls
from safety_regions.behaviour.edit import Weights as ByAddress
from safety_regions.behaviour.edit import all_weights, as_array, edited
from safety_regions.behaviour.finetune import Data, Plan, Weights, fine_tune, task_loss
from safety_regions.behaviour.journal import Journal
from safety_regions.behaviour.measures import Ruler, Value
from safety_regions.behaviour.operations import load_operation
from safety_regions.formats.expand import expand_region
from safety_regions.formats.region import Region
from safety_regions.joblog import Progress
from safety_regions.model.backbone import Backbone
from safety_regions.units.behaviour import (
    DRAWN,
    FREE,
    HARMFUL,
    NONE,
    ONLY,
    REGION,
    REWIND,
    TASK_LOSS,
    TAUGHT,
    UTILITY,
)


class Arm(NamedTuple):
    """One fine-tuned model: what is done, and which weights are constrained (none, the region's or a control's).

    Where a model is restored after training, ``none`` stands for all weights.
    """

    arm: str
    control: str = NONE
    draw: int = 0


def restoring(restore: Mapping[str, Sequence[float]]) -> dict[str, tuple[str, float]]:
    """The arms that restore a model after training: their names -> operation, dose."""
    return {f"{name}-{dose:g}": (name, dose) for name, doses in restore.items() for dose in doses}


def constraint_arms(
    region: Region,
    arms: Sequence[str],
    kinds: Sequence[str],
    draws: int,
    restore: Mapping[str, Sequence[float]] = MappingProxyType({}),
    utility: Sequence[Region] = (),
) -> list[Arm]:
    """All arms of a job, the free one first.

    Args:
        arms: those of the config, among freeze, only, rewind.
        kinds: the controls of the config, among random, matched, magnitude, change, utility.
        draws: draws of each control that is drawn at random.
        restore: operation on the freely trained model -> its doses.
        utility: the regions of utility sets; the first is draw 1 of the control of that name.
    """
    found = [Arm(FREE), *(Arm(name) for name in restoring(restore))]
    for arm in [*arms, *restoring(restore)]:
        found.append(Arm(arm, REGION))
        for kind in kinds:
            if kind == UTILITY:
                found += [Arm(arm, kind, i) for i, other in enumerate(utility, 1) if other.n_selected]
            else:
                n = controls.n_draws(region, kind, draws)
                found += [Arm(arm, kind, draw if kind in DRAWN else 0) for draw in range(1, n + 1)]
    return found


class Constraint:
    """Runs the arms of a job for one plan.

    Args:
        backbone: in float32, with the weights that training starts from; put back at the end.
        aligned: the weights of the aligned model by address, by which controls are chosen; None: those of the backbone.
        before: its weights before alignment, for the control ``change`` and what restores; None if there are none.
        region: the region, at its own granularity.
        data: the chats of the plan.
        plan: how the model is fine-tuned.
        every: steps between two measurements while it trains.
        ruler: measures the model.
        restore, utility: as in `constraint_arms`.
    """

    def __init__(
        self, backbone: Backbone, aligned: ByAddress | None, before: ByAddress | None, region: Region, data: Data,
        plan: Plan, every: int, ruler: Ruler, restore: Mapping[str, Sequence[float]] = MappingProxyType({}),
        utility: Sequence[Region] = (),
    ) -> None:  # fmt: skip
        self.backbone, self.region, self.utility, self.ruler = backbone, region, utility, ruler
        self.data, self.plan, self.every = data, plan, every
        self.start, self.before = Weights(backbone), before
        self._restoring = {REWIND: (REWIND, 1.0)} | restoring(restore)
        weights = self.start.by_address() if aligned is None else aligned
        self._controls = controls.Maker(
            region,
            lambda where: as_array(weights[where]),
            lambda where: as_array(before[where]),
            backbone.shapes,
        )
        self._roles = {held.sample.prompt_id: held.role for held in ruler.held}

    def run(self, planned: Sequence[Arm], journal: Journal) -> Iterator[tuple[Arm, list[dict]]]:
        """Yield every arm with its rows: ``step``, ``evaluated``, ``measure``, ``value``, ``n``, ``n_changed``."""
        done = journal.read()
        restored = [arm for arm in planned if arm.arm in self._restoring]
        progress = Progress("constraint", len(planned), "arms", sum(arm in done for arm in planned))
        for arm in planned:
            if arm not in done and arm not in restored:
                before = len(done)
                if arm.arm == FREE:
                    done |= self._free(restored, journal)
                else:
                    done[arm] = self._trained(arm, journal)
                progress.step(len(done) - before, " ".join(map(str, arm)))
        yield from ((arm, done[arm]["rows"]) for arm in planned)

    def _free(self, restored: Sequence[Arm], journal: Journal) -> dict[tuple, dict]:
        """The free run, and the models restored from it; written at its end, because its weights are not kept."""
        rows = self._measure(0, True) + self._train(Arm(FREE), None)
        found: dict[tuple, dict] = {}
        for arm in restored:
            name, dose = self._restoring[arm.arm]
            region, aligned = self._expanded(arm), self.start.by_address()
            with edited(self.backbone, load_operation(name), dose, region, self.before, arm.draw, aligned):
                found[arm] = {"rows": self._measure(self.plan.steps, True)}
        self.start.restore()
        found[Arm(FREE)] = {"rows": rows}
        for arm, result in found.items():
            journal.add(arm, result)
        return found

    def _trained(self, arm: Arm, journal: Journal) -> dict:
        rows = self._train(arm, self.start.masks(self._expanded(arm), inside=arm.arm == ONLY))
        self.start.restore()
        journal.add(arm, {"rows": rows})
        return {"rows": rows}

    def _train(self, arm: Arm, masks: list | None) -> list[dict]:
        rows: list[dict] = []

        def watch(step: int) -> None:
            if step < self.plan.steps:
                rows.extend(self._measure(step, False))

        name = " ".join(map(str, arm))
        fine_tune(self.backbone, self.start, self.data, self.plan, masks, watch, self.every, name)
        return rows + self._measure(self.plan.steps, True)

    def _measure(self, step: int, generate: bool) -> list[dict]:
        """The means over harmful and ordinary prompts, and the loss of the plan's task."""
        values = self.ruler.forward()
        if generate:
            values += self.ruler.refusals(self.ruler.generate())
        changed = self.start.n_changed()
        rows = [
            {"evaluated": role, "measure": measure, "value": float(np.mean(found)), "n": len(found)}
            for (role, measure), found in self._by_role(values).items()
        ]
        loss = task_loss(self.backbone, self.data.held_out)
        role, n = TAUGHT[self.plan.attack], len(self.data.held_out)
        rows.append({"evaluated": role, "measure": TASK_LOSS, "value": loss, "n": n})
        return [row | {"step": step, "n_changed": changed} for row in rows]

    def _by_role(self, values: Sequence[Value]) -> dict[tuple[str, str], list[float]]:
        found: dict[tuple[str, str], list[float]] = {}
        for value in values:
            found.setdefault((self._roles[value.prompt_id], value.measure), []).append(value.value)
        return {key: found[key] for key in sorted(found, key=lambda key: (key[0] != HARMFUL, key[1]))}

    def _expanded(self, arm: Arm) -> Region:
        """The weights that are constrained or restored."""
        if arm.control == NONE:
            return all_weights(self.backbone)
        if arm.control == REGION:
            region = self.region
        elif arm.control == UTILITY:
            region = self.utility[arm.draw - 1]
        else:
            region = self._controls.make(arm.control, arm.draw)
        return expand_region(region, self.backbone.shapes)
