"""Jobs that read every cell of a grid need memory for one cell of a large backbone, however many cells there are."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from safety_regions.errors import StudyError
from safety_regions.formats.contracts import IOU, MEMBERSHIP, OVERLAP
from safety_regions.formats.parquet import iter_rows, read_table, write_table
from safety_regions.overlap.iou import compute_overlap
from safety_regions.report.verdict.measure import model_pairs
from safety_regions.units.addresses import PROJECTIONS
from tests.overlap.memberships import draw_regions, membership_of
from tests.paths import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc to read the memory of jobs"),
]
SHAPES = {f"layers.{layer}.{projection}": (4, 64) for layer in range(32) for projection in PROJECTIONS}
FEW, MANY = 2, 16
SPARE = 40
"""MB by which peaks may differ by chance. A job that held all rows at once would need 14 MB for each cell."""

JOB = """
import json, runpy, sys
from pathlib import Path
from types import SimpleNamespace

given = {part: SimpleNamespace(**files) for part, files in json.loads(sys.argv[2]).items()}
snakemake = SimpleNamespace(**given, log=[sys.argv[3]])
runpy.run_path(sys.argv[1], {"snakemake": snakemake}, run_name="__main__")
print(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
"""


def peak_of(folder, script, **given):
    """Run a script of the workflow with these inputs, outputs and params, and return its peak memory (MB)."""
    command = [
        sys.executable,
        "-c",
        JOB,
        ROOT / "workflow/scripts" / script,
        json.dumps(given),
        folder / "log",
    ]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) / 1024


@pytest.fixture(scope="module")
def aggregated(tmp_path_factory):
    """Gather and summarise few and many cells; each cell holds the overlaps of ten sets of a 32-layer backbone.

    Return the folder, and the peak memory (MB) of each of the two jobs by number of cells.
    """
    folder = tmp_path_factory.mktemp("cells")
    membership = membership_of(folder, draw_regions(0, 10, shapes=SHAPES))
    table, counts = str(folder / "cell.parquet"), str(folder / "membership.parquet")
    write_table(table, compute_overlap(membership, "identification"), OVERLAP)
    write_table(counts, membership.table, MEMBERSHIP, membership.metadata)
    gathering, summing = {}, {}
    for n in (FEW, MANY):
        both = {name: str(folder / f"{name}-{n}.parquet") for name in ("iou", "sizes")}
        cells = [[f"backbone-{i}", "snip", "row-0.05", "raw"] for i in range(n)]
        inputs = {"overlaps": [table] * n, "memberships": [counts] * n}
        gathering[n] = peak_of(
            folder, "gather_overlaps.py", input=inputs, output=both, params={"cells": cells}
        )
        nothing = {"beside": {}, "data_free": [], "base_reading": []}
        summing[n] = peak_of(
            folder,
            "write_verdict.py",
            input=both,
            output={"tsv": str(folder / f"verdict-{n}.tsv")},
            params={"names": membership.metadata["names"], **nothing},
        )
    return folder, gathering, summing


def test_more_cells_take_no_more_memory(aggregated):
    _, gathering, summing = aggregated
    assert gathering[MANY] < gathering[FEW] + SPARE
    assert summing[MANY] < summing[FEW] + SPARE


def test_every_cell_is_gathered_and_summed_up(aggregated):
    folder, _, _ = aggregated
    iou = pq.ParquetFile(folder / f"iou-{MANY}.parquet")
    one = pq.ParquetFile(folder / "cell.parquet").metadata.num_rows
    assert iou.num_row_groups == MANY and iou.metadata.num_rows == MANY * one
    verdicts = (folder / f"verdict-{MANY}.tsv").read_text().splitlines()
    assert [line.split("\t")[0] for line in verdicts[1:]] == [f"backbone-{i}" for i in range(MANY)]


def test_the_pairs_are_those_of_the_whole_table(aggregated):
    path = aggregated[0] / f"iou-{FEW}.parquet"
    table = read_table(path, IOU)
    model = table.filter(pc.and_(pc.equal(table["level"], "model"), pc.equal(table["k"], 2)))
    assert model_pairs(path).to_pylist() == model.to_pylist()
    assert model.num_rows == FEW * 45


def test_a_damaged_group_is_named(aggregated, tmp_path):
    content = bytearray((aggregated[0] / f"iou-{FEW}.parquet").read_bytes())
    content[len(content) // 3] ^= 0x10
    (tmp_path / "iou.parquet").write_bytes(content)
    with pytest.raises(StudyError, match=r"iou\.parquet: found damaged data.*delete the file"):
        list(iter_rows(tmp_path / "iou.parquet", IOU, {"level": "model"}))
