"""Jobs from scores to overlaps must start quickly: neither their imports nor their work may load torch or pandas."""

import pkgutil
import subprocess
import sys

import numpy as np

import safety_regions.overlap
import safety_regions.regions
from tests.overlap.memberships import draw_regions, write_regions
from tests.regions.small_regions import SHAPES, write_scores

HEAVY = "print(sorted({'torch', 'transformers', 'pandas'} & set(sys.modules)))"
WORK = """
import sys
from safety_regions.overlap.gather import gather_overlaps, gather_sizes, write_square_tsv
from safety_regions.overlap.iou import compute_overlap, iou_matrix
from safety_regions.overlap.membership import count_membership, read_membership, region_totals
from safety_regions.formats.region import write_region
from safety_regions.regions.refine import subtract_region
from safety_regions.regions.select import select_region
from safety_regions.formats.contracts import MEMBERSHIP, OVERLAP
from safety_regions.formats.parquet import write_table

scores, out, *paths = sys.argv[1:]
region = select_region(scores, "row", 0.5, allow_empty=True)
write_region(out + "/refined", subtract_region(region, region))
membership = count_membership({str(d): path for d, path in enumerate(paths)})
write_table(out + "/membership", membership.table, MEMBERSHIP, membership.metadata)
overlap = compute_overlap(read_membership(out + "/membership"))
write_table(out + "/overlap", overlap, OVERLAP)
sizes = region_totals(membership)
write_square_tsv(out + "/iou.tsv", list(sizes), iou_matrix(overlap, sizes))
list(gather_overlaps({("b", "m", "s", "r"): out + "/overlap"}))
list(gather_sizes({("b", "m", "s", "r"): out + "/membership"}))
"""


def heavy_after(code, *arguments):
    command = [sys.executable, "-c", f"import sys\n{code}\n{HEAVY}", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_importing_is_light():
    rooms = (safety_regions.regions, safety_regions.overlap)
    names = [
        f"{room.__name__}.{module.name}" for room in rooms for module in pkgutil.iter_modules(room.__path__)
    ]
    assert len(names) > 8
    assert heavy_after("\n".join(f"import {name}" for name in names)) == "[]"


def test_working_is_light(tmp_path):
    rng = np.random.default_rng(0)
    scores = {where: rng.random(shape) for where, shape in SHAPES.items()}
    table = write_scores(tmp_path / "scores", "weight", scores, {"row": 0.5})
    paths = write_regions(tmp_path, draw_regions(0, 3)).values()
    assert heavy_after(WORK, table, tmp_path, *paths) == "[]"
