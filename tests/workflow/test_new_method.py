"""A new method is one new file: toy methods of weights, neurons and layers run from scores to the last IoU."""

import pytest

from safety_regions.formats.contracts import IOU
from safety_regions.formats.parquet import read_metadata, read_table
from safety_regions.formats.region import read_region
from tests.workflow.conftest import make_project

pytestmark = pytest.mark.slow

WEIGHTS = '''"""Toy of weights: |W| times the root of the summed squares of its inputs at the response."""

import torch

from safety_regions.scoring.passes import watch_inputs

CARD = {"title": "Toy of weights", "granularity": "weight", "streams": True, "selections": ["row-0.1", "global-0.05"],
        "kept": {"row": 0.1, "global": 0.05},
        "options": {"power": {"type": "number", "default": 1, "description": "of the inputs"}}}


def gather(backbone, samples, options):
    return watch_inputs(backbone, samples, Sums)


class Sums:
    def __init__(self, linears):
        self.linears = linears
        self.sums = {id(linear.module): torch.zeros(linear.module.in_features) for linear in linears}

    def add(self, linear, x, batch):
        self.sums[id(linear.module)] += x[batch.response_mask].float().square().sum(0)

    def evidence(self, seen):
        return {where: self.sums[id(linear.module)] for linear in self.linears for where, _, _ in linear.slices}


def scores(backbone, evidence, options):
    for where, weight in backbone.weights():
        yield where, weight.float().abs() * evidence[where].sqrt() ** options["power"]
'''
NEURONS = '''"""Toy of neurons: the norm of a neuron's weights, with a selection of its own: every second neuron."""

import numpy as np
import torch

from safety_regions.formats.region import Region
from safety_regions.formats.score_file import ScoreFile
from safety_regions.units.granularity import GRANULARITIES

NEURON = GRANULARITIES["neuron"]
CARD = {"title": "Toy of neurons", "granularity": "neuron", "data_free": True, "streams": True,
        "selections": ["matrix-0.25", "even"],
        "own_selections": {"even": {"pattern": "even|odd", "example": "even", "description": "every second neuron"}}}


def gather(backbone, samples, options):
    return {}


def scores(backbone, evidence, options):
    for where, weight in backbone.weights():
        projection = where.rpartition(".")[2]
        if projection in NEURON.projections:
            yield where, weight.float().norm(dim=0 if projection in NEURON.columns else 1)


def details(backbone, evidence, options, where):
    values = dict(scores(backbone, evidence, options))[where]
    ranks = (-values).argsort(stable=True).argsort(stable=True) + 1
    return {"ranks": ranks.int()[:, None], "importances": values[:, None]}


def select(scores, selection, sweep, allow_empty):
    file = ScoreFile(scores)
    start = 0 if selection == "even" else 1
    flags = {where: np.arange(shape[0]) % 2 == start for where, shape in file.shapes.items()}
    return Region.pack(flags, {**file.metadata, "scope": "matrix", "fraction": 0.5, "refinement": "raw"})
'''
LAYERS = '''"""Toy of layers: how far the prompts' last states move in a layer."""

import torch

from safety_regions.model.backbone import attached

CARD = {"title": "Toy of layers", "granularity": "layer", "selections": ["global-0.4"]}


def gather(backbone, samples, options):
    moved = torch.zeros(len(backbone.blocks))

    def hook_of(layer):
        def hook(module, args, output):
            hidden = output[0] if isinstance(output, tuple) else output
            moved[layer] += (hidden - args[0])[0, -1].norm().item()

        return hook

    handles = [block.register_forward_hook(hook_of(i)) for i, block in enumerate(backbone.blocks)]
    with torch.no_grad(), attached(handles):
        for sample in samples.identification:
            backbone.decoder(input_ids=torch.tensor([sample.ids]), use_cache=False)
    return {"layers": moved}


def scores(backbone, evidence, options):
    yield "layers", evidence["layers"]
'''


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Run the tiny study with floors and three methods, each of which is a new file in a copy of the project."""
    project = make_project(tmp_path_factory.mktemp("toys") / "project")
    for name, text in {"toy_weights": WEIGHTS, "toy_neurons": NEURONS, "toy_layers": LAYERS}.items():
        (project.folder / "safety_regions" / "methods" / f"{name}.py").write_text(text)
    methods = {"toy_weights": {"options": {"power": 2}}, "toy_neurons": {}, "toy_layers": {}}
    project.config = project.config | {"methods": methods, "floors": 2, "compare_methods": 0.34}
    project.config = project.config | {"kept": {"matrix": 0.34}}
    project.run()
    return project


def test_every_toy_reaches_the_last_iou(project):
    iou = read_table(project.folder / "results/overlap/iou.parquet", IOU)
    cells = {tuple(row[key] for key in ("method", "selection", "refinement")) for row in iou.to_pylist()}
    selections = [("toy_weights", "row-0.1"), ("toy_weights", "global-0.05"), ("toy_neurons", "matrix-0.25"),
                  ("toy_neurons", "even"), ("toy_layers", "global-0.4")]  # fmt: skip
    assert cells == {(*both, refinement) for both in selections for refinement in ("raw", "minus-plain")}
    whole = [row for row in iou.to_pylist() if row["level"] == "model" and row["refinement"] == "raw"]
    of_neurons = [row for row in whole if row["method"] == "toy_neurons"]
    assert of_neurons and all(row["iou"] == 1 for row in of_neurons), "the method reads no prompt"
    assert all((row["floor"] is None) == (row["method"] == "toy_neurons") for row in whole)
    assert all(0 <= row["iou"] <= 1 for row in whole)


def test_options_reach_the_method_and_its_own_selection_is_made(project):
    results = project.folder / "results"
    assert read_metadata(results / "scores/tiny/toy_weights/one.parquet")["options"] == {"power": 2}
    region = read_region(results / "regions/tiny/toy_neurons/one/even/raw.safetensors")
    assert all(
        region.flags(where)[::2].all() and not region.flags(where)[1::2].any() for where in region.shapes
    )


def test_methods_of_different_units_are_compared(project):
    matrix = (project.folder / "results/overlap/tiny/methods/one.iou.tsv").read_text().splitlines()
    assert matrix[0].split("\t")[1:] == ["toy_layers", "toy_neurons", "toy_weights"]


def test_a_second_run_has_nothing_to_do_and_an_edit_reruns_one_toy(project):
    assert project.plan() == {}
    project.edit("safety_regions/methods/toy_neurons.py", "% 2 == start", "% 3 == start")
    planned = project.planned_outputs()
    assert {o.split("/")[3] for o in planned if o.startswith("results/regions/")} == {"toy_neurons"}
    assert not any("/toy_weights/" in o and "/report/" not in o for o in planned)
