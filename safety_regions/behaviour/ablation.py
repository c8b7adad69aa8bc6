"""An ablation job: load a model once, change the weights of a region and of its controls, measure each time.

An *arm* is one changed model: an operation with a dose, on the region itself or on a control. The arms without a change
(``none``) are the unmodified model and, for operations that start from the base model, the base model. Every arm is
measured by forward passes; the region, the unchanged models and the first draws of controls also by generated answers.
The control ``direction`` is the whole model without the direction of refusals, whatever is done to the region; it is
measured once, and is no control of an operation that starts from the base model.

Finished arms are kept in a journal beside the output, so that an interrupted job goes on where it was.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from torch import Tensor

from safety_regions.behaviour import controls
from safety_regions.behaviour.edit import (
    Weights,
    as_array,
    changeable,
    edited,
    fingerprint,
    n_weights_of,
    n_writing,
    without_direction,
)
from safety_regions.behaviour.journal import Journal
from safety_regions.behaviour.measures import Ruler
from safety_regions.behaviour.operations import load_operation
from safety_regions.behaviour.tasks import Tasks
from safety_regions.errors import StudyError, explain
from safety_regions.formats.expand import Factors, expand_region
from safety_regions.formats.region import Region
from safety_regions.formats.subspaces import AnyRegion, Subspaces
from safety_regions.joblog import Progress
from safety_regions.model.backbone import Backbone
from safety_regions.study.operation_shelf import operation_cards
from safety_regions.units.behaviour import (
    CORE,
    DIRECTION,
    DRAWN,
    NONE,
    OTHER,
    PART,
    PRIVATE,
    REGION,
    UTILITY,
)
from safety_regions.units.granularity import GRANULARITIES


class Arm(NamedTuple):
    """One changed model.

    Attributes:
        operation, dose: what is done.
        control: to which weights: the region's, a control's, or none.
        of: the set whose region it is, for controls that are regions of other sets; otherwise empty.
        draw: number of the draw, from 1; 0 if there is one.
        generated: whether answers are generated.
    """

    operation: str
    dose: float
    control: str
    of: str = ""
    draw: int = 0
    generated: bool = False

    @property
    def title(self) -> str:
        which = " ".join(filter(None, [self.control, self.of, f"draw {self.draw}" if self.draw else ""]))
        return f"{self.operation} {self.dose:g} on {which}"


class Plan(NamedTuple):
    """What an ablation job does.

    Attributes:
        operations: operation -> doses.
        controls: the controls that the config asks for.
        draws: draws of each control that is drawn at random.
        generated: how many of them are also measured by generated answers.
        tasks: task of lm-eval, measured where answers are generated -> most documents; None: all.
        task_folder: where task files of one's own are.
    """

    operations: Mapping[str, Sequence[float]]
    controls: Sequence[str]
    draws: int
    generated: int
    tasks: Mapping[str, int | None] = MappingProxyType({})
    task_folder: str | None = None


class Regions(NamedTuple):
    """The region of a job, at its own granularity, and those of other sets that it is compared with.

    Attributes:
        own: the region.
        utility: utility set -> its region.
        other: other identification set -> its region.
    """

    own: AnyRegion
    utility: Mapping[str, AnyRegion]
    other: Mapping[str, AnyRegion]


def arms(regions: Regions, plan: Plan) -> list[Arm]:
    """All arms of a job, the unchanged models first."""
    found = [Arm("scale", 1.0, NONE, generated=True)]
    cards = operation_cards()
    if any(cards[operation]["into_base"] for operation in plan.operations):
        found.append(Arm("transplant", 0.0, NONE, generated=True))
    for operation, doses in plan.operations.items():
        for dose in doses:
            found.append(Arm(operation, dose, REGION, generated=True))
            kinds = [k for k in plan.controls if k != DIRECTION or not cards[operation]["into_base"]]
            for kind in kinds:
                found += [
                    Arm(operation, dose, name, of, draw, draw <= plan.generated)
                    for name, of, draw in _instances(regions, kind, plan.draws)
                ]
    return found


def _instances(regions: Regions, kind: str, draws: int) -> Iterator[tuple[str, str, int]]:
    """(control, set, draw) of every region of a kind of control; the draw is 0 if there is only one."""
    if kind in (UTILITY, OTHER):
        named = regions.utility if kind == UTILITY else regions.other
        yield from ((kind, of, 0) for of, region in named.items() if region.n_selected)
    elif kind in (CORE, PRIVATE):
        if isinstance(regions.own, Subspaces):
            return
        smaller = _membership_part(regions, kind) if regions.other else None
        if smaller is not None and smaller.n_selected:
            yield kind, "", 0
            yield from ((kind + PART, "", draw) for draw in range(1, draws + 1))
    elif kind in DRAWN:
        n = controls.n_draws(regions.own, kind, draws)
        yield from ((kind, "", draw) for draw in range(1, n + 1))
    elif controls.n_draws(regions.own, kind, 1):
        yield kind, "", 0


def _membership_part(regions: Regions, kind: str) -> Region:
    """The units of the region that all other identification sets have too (core), or none of them (private)."""
    own, others = regions.own, list(regions.other.values())
    flags = {}
    for where in own.shapes:
        inside = [region.flags(where) for region in others]
        joined = np.all(inside, axis=0) if kind == CORE else ~np.any(inside, axis=0)
        flags[where] = own.flags(where) & joined
    return Region.pack(flags, own.metadata)


class Ablation:
    """Runs the arms of a job.

    Args:
        backbone: the aligned model; changed in place, and put back after every arm.
        base: its weights before alignment; None if there are none.
        regions: the region and those it is compared with.
        plan: the arms.
        ruler: measures the model.
        factors: of the LoRA adapter, for a region of its factors.
        direction: of refusals (hidden,), for the control of that name.
    """

    def __init__(
        self,
        backbone: Backbone,
        base: Weights | None,
        regions: Regions,
        plan: Plan,
        ruler: Ruler,
        factors: Factors | None = None,
        direction: Tensor | None = None,
    ) -> None:
        self.backbone, self.base, self.plan, self.ruler = backbone, base, plan, ruler
        self.direction = direction
        self.shapes = {where: tuple(shape) for where, shape in backbone.shapes.items()}
        if GRANULARITIES[regions.own.metadata["granularity"]].factors:
            regions = Regions(*(_expanded(part, self.shapes, factors) for part in regions))
        if isinstance(regions.own, Subspaces):
            changeable(regions.own, plan.operations, self.shapes)
        self.regions = regions
        weights = dict(backbone.weights())
        self._controls = controls.Maker(
            regions.own,
            lambda where: as_array(weights[where]),
            lambda where: as_array(base[where]),
            self.shapes,
        )
        self._tasks = Tasks(backbone, plan.tasks, plan.task_folder, ruler.batch_size) if plan.tasks else None
        self._marks = fingerprint(backbone)

    def run(self, journal: Journal) -> Iterator[tuple[Arm, dict]]:
        """Yield every arm with its result.

        A result has ``n_weights``, ``n_changed``, ``values`` (fields of `measures.Value`), and ``answers``: one for
        each held-out prompt, or none if no answers are generated.
        """
        planned, done = arms(self.regions, self.plan), journal.read()
        progress = Progress("ablation", len(planned), "arms", sum(arm in done for arm in planned))
        for arm in planned:
            if arm not in done:
                result = self._measure(arm)
                journal.add(arm, result)
                done[arm] = result
                progress.step(note=arm.title)
            yield arm, done[arm]

    def _measure(self, arm: Arm) -> dict:
        if arm.control == DIRECTION:
            return self._without_direction
        region = changeable(self._region(arm), [arm.operation], self.shapes)
        change = edited(
            self.backbone, load_operation(arm.operation), arm.dose, region, self.base, seed=arm.draw
        )
        return self._changed(change, n_weights_of(region, self.shapes), arm.generated, arm.title)

    @cached_property
    def _without_direction(self) -> dict:
        change = without_direction(self.backbone, self.direction)
        return self._changed(change, n_writing(self.backbone), True, "the model without the direction")

    def _changed(
        self, change: AbstractContextManager[int], n_weights: int, generated: bool, title: str
    ) -> dict:
        """Measure the model while it is changed; ``change`` yields the number of weights whose value changed."""
        with change as n_changed:
            values = self.ruler.forward()
            answers = self.ruler.generate() if generated else None
            values += self._tasks.measure() if self._tasks and generated else []
        if fingerprint(self.backbone) != self._marks:
            raise StudyError(explain(title, "weights that did not come back", "the unmodified model"))
        values += self.ruler.judge(answers) if answers is not None else []
        return {"n_weights": n_weights, "n_changed": n_changed, "values": values, "answers": answers or []}

    def _region(self, arm: Arm) -> AnyRegion:
        own = self.regions.own
        if arm.control == NONE and isinstance(own, Subspaces):
            return replace(own, bases={where: basis[:, :0] for where, basis in own.bases.items()})
        if arm.control == NONE:
            return Region.pack({w: np.zeros(s, bool) for w, s in own.shapes.items()}, own.metadata)
        if arm.control in (UTILITY, OTHER):
            return (self.regions.utility if arm.control == UTILITY else self.regions.other)[arm.of]
        if arm.control == REGION:
            return own
        if arm.control in (CORE, PRIVATE):
            return _membership_part(self.regions, arm.control)
        if arm.control.endswith(PART):
            smaller = _membership_part(self.regions, arm.control.removesuffix(PART))
            return controls.part_of(own, smaller, arm.draw)
        return self._controls.make(arm.control, arm.draw)


def _expanded(part: Region | Mapping[str, Region], shapes: Mapping, factors: Factors | None):
    if isinstance(part, Region):
        return expand_region(part, shapes, factors)
    return {name: expand_region(region, shapes, factors) for name, region in part.items()}
