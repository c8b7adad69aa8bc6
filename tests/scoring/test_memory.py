"""Plans use the free memory well, batches that run out of memory are halved, and bounds hold under a real limit."""

import json
import subprocess
import sys
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safety_regions.errors import StudyError
from safety_regions.model.batches import Sample
from safety_regions.model.free_memory import CPU
from safety_regions.model.halving import halving, in_batches
from safety_regions.scoring.evidence import shuffle_evidence
from safety_regions.scoring.keep import as_table, keep_top
from safety_regions.scoring.memory import (
    KEEPING,
    Needs,
    needs_of,
    plan_passes,
)
from safety_regions.scoring.passes import watch_gradients, watch_inputs
from safety_regions.scoring.samples import Samples
from safety_regions.units.granularity import GRANULARITIES
from tests.methods.test_weights import samples_of
from tests.paths import ROOT
from tests.peak_memory import peak_bytes
from tests.tiny import FAMILIES, tiny_backbone

pytestmark = pytest.mark.slow


class Nothing:
    """Statistics of a pass that gathers none."""

    def add(self, *_):
        pass

    def evidence(self, seen):
        return {}


GPUS = [torch.device("cuda", i) for i in range(2)]


@st.composite
def situations(draw):
    """Draw the needs of decoder blocks on one or two devices, the free memory of each device, and a batch size."""
    devices = GPUS[: draw(st.integers(1, 2))]
    layers, n = draw(st.integers(1, 12)), st.integers(1, 50)
    sums = [Counter({devices[layer * len(devices) // layers]: draw(n)}) for layer in range(layers)]
    blocks = [Counter({device: draw(n) for device in block}) for block in sums]
    parts = [Counter({d: draw(n) for d in devices}) for _ in range(3)]
    return (
        Needs(sums, blocks, *parts),
        Counter({d: draw(st.integers(1, 800)) for d in devices}),
        draw(st.integers(1, 16)),
    )


def fits(needed: Counter, free: Counter) -> bool:
    return all(needed[device] <= free[device] for device in needed)


@given(situations())
def test_a_plan_fits_and_wastes_nothing(situation):
    needs, free, wanted = situation
    every = range(len(needs.sums))
    try:
        plan = plan_passes(needs, free, wanted)
    except StudyError as error:
        assert not all(fits(needs.of(range(i, i + 1), 1), free) for i in every)
        assert "MB free" in str(error) and "Try: " in str(error)
        return
    assert [layer for layers in plan.passes for layer in layers] == list(every)
    assert all(fits(needs.of(layers, plan.batch_size), free) for layers in plan.passes)
    for before, after in zip(plan.passes, plan.passes[1:], strict=False):
        assert not fits(needs.of(range(before.start, after.start + 1), 1), free), (
            "one pass could serve more layers"
        )
    sizes = [wanted]
    while sizes[-1] > 1:
        sizes.append(sizes[-1] // 2)
    assert plan.batch_size in sizes
    for larger in sizes[: sizes.index(plan.batch_size)]:
        assert not all(fits(needs.of(layers, larger), free) for layers in plan.passes)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 50))
def test_what_runs_out_goes_on_in_halves(size, room, n):
    def run(group):
        if len(group) > room:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return sum(group)

    groups = list(in_batches(range(n), size, run))
    assert [item for group, _ in groups for item in group] == list(range(n))
    assert all(total == sum(group) and len(group) <= min(size, room) for group, total in groups)
    assert 2 * len(groups[0][0]) >= min(size, room, n), "a batch was halved more often than needed"


def test_what_does_not_fit_alone_and_what_is_another_error_are_said():
    def full(_size):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")

    def broken(_size):
        raise RuntimeError("shapes differ")

    with pytest.raises(StudyError, match="not enough memory for a single sample"):
        halving(8, full)
    with pytest.raises(RuntimeError, match="shapes differ"):
        halving(8, broken)


def test_the_peak_of_tensors_is_counted_and_what_was_there_is_not():
    before = torch.zeros(1000, dtype=torch.float64)

    def call():
        a = before + 1  # 8000 bytes
        b = a.view(10, 100).T  # a view: no bytes
        c = (b * 2).float()  # 8000 bytes for the product, and 4000 for the result
        del a, b
        return before.mul_(1), c

    assert peak_bytes(call) == 8000 + 8000 + 4000


LONG = [Sample(f"p{i}", [7 * i % 250] * (120 + 5 * i), 60) for i in range(4)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sizes", [(64, 160, 16), (128, 160, 16), (64, 512, 16), (64, 160, 48)])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_pass_takes_at_most_the_planned_memory_and_over_a_third(family, sizes, dtype):
    """The peak memory of torch's tensors is at most the bound, without a factor for fragmentation, and close to it."""
    hidden, intermediate, head = sizes
    backbone = tiny_backbone(
        family, dtype=dtype, hidden_size=hidden, intermediate_size=intermediate, head_dim=head
    )
    backbone.config._attn_implementation = backbone.family.attention_implementation
    for longest, batch in ((LONG[-1], LONG), (samples_of(1)[0], samples_of(1))):
        needs = needs_of(backbone, longest, 0, gradients=True)
        taken = peak_bytes(lambda batch=batch: watch_gradients(backbone, Samples(batch), lambda _: Nothing()))
        bound = len(batch) * (sum(needs.blocks, needs.passing)[CPU])
        assert 0.33 * bound < taken <= bound
        needs = needs_of(backbone, longest, 0, gradients=False)
        taken = peak_bytes(lambda batch=batch: watch_inputs(backbone, Samples(batch), lambda _: Nothing()))
        assert taken <= len(batch) * needs.passing[CPU]


def test_sums_are_counted_for_every_weight():
    backbone = tiny_backbone("phi3")
    needs = needs_of(backbone, LONG[0], 4, gradients=True)
    assert sum(sums[CPU] for sums in needs.sums) == 4 * sum(w.numel() for _, w in backbone.weights())


@pytest.mark.parametrize(
    "kept", [{"row": 0.05}, {"matrix": 0.1, "row": 0.05}, {"global": 0.05}, {"layer": 0.05}]
)
@pytest.mark.parametrize("shuffled", [False, True])
def test_scoring_a_matrix_takes_no_more_than_planned(kept, shuffled):
    weight = torch.randn(2000, 1000).bfloat16()
    evidence = {"layers.0.q": torch.rand(weight.shape)}
    evidence = shuffle_evidence(evidence, 1) if shuffled else evidence

    def scored():
        yield "layers.0.q", weight.float().abs() * evidence["layers.0.q"]

    taken = peak_bytes(lambda: [as_table(GRANULARITIES["weight"], *one) for one in keep_top(scored, kept)])
    assert taken < 0.8 * KEEPING * weight.numel(), "the rest must be left to numpy and pyarrow"


LIMITED = """
import contextlib, io, json, resource, sys
import torch
from bench.models import SMALL, llama, samples
from safety_regions.methods import snip
from safety_regions.scoring import passes
from safety_regions.scoring.memory import Plan
from safety_regions.scoring.samples import Samples

torch.set_num_threads(1)
planned, headroom = sys.argv[1] == "planned", int(sys.argv[2])
backbone = llama(SMALL | {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 12})
chosen = samples(6, 64, 1000)
tiny = [sample._replace(ids=sample.ids[:6], prompt_length=3) for sample in chosen[:1]]
options = {"loss": "mean", "accumulator": "float32"}
snip.gather(llama(SMALL | {"num_hidden_layers": 1}), Samples(tiny), options)  # so that one-time setup is not counted
if headroom:
    used = int(open("/proc/self/status").read().split("VmData:")[1].split()[0]) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (used + headroom, resource.RLIM_INFINITY))
made = []
make = passes.plan_passes
passes.plan_passes = lambda needs, free, size: (
    made.append(make(needs, free, size) if planned else Plan(size, (range(12),))) or made[-1])
with contextlib.redirect_stdout(io.StringIO()) as said:
    evidence = snip.gather(backbone, Samples(chosen, batch_size=1), options)
print(json.dumps({
    "passes": len(made[0].passes),
    "sums": 4 * sum(values.numel() for values in evidence.values()),
    "said": said.getvalue(), "scores": [float(values.double().sum()) for values in evidence.values()],
}))
"""


def limited(how: str, headroom: int) -> dict:
    """Run SNIP in a process that may take ``headroom`` bytes beside its model (0: no limit); return what it prints."""
    command = [sys.executable, "-c", LIMITED, how, str(headroom)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs the RLIMIT_DATA of Linux")
def test_with_less_memory_than_its_sums_take_a_pass_serves_fewer_layers():
    """With memory for the sums alone, scores stay the same and no attempt fails; without a plan, attempts fail."""
    free = limited("planned", 0)
    assert free["passes"] == 1
    headroom = free["sums"]
    held = limited("planned", headroom)
    assert held["passes"] > 1 and held["scores"] == free["scores"] and "out of memory" not in held["said"]
    unplanned = limited("unplanned", headroom)
    assert (
        unplanned["scores"] == free["scores"] and "out of memory with 12 decoder blocks" in unplanned["said"]
    )
