"""How much time of a scoring job do Python, imports and loading take, and how much does the method take?"""

import importlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from bench.measure import Figure, command, require
from safety_regions.study.method_shelf import method_module
from tests.paths import ROOT

STAGES = (
    "start Python",
    "import torch",
    "import transformers",
    "import safety_regions",
    "load",
    "gather",
    "store",
)
KEPT = 0.05


class Sizes(NamedTuple):
    """Models by title, number of samples, approximate tokens per sample, and the method."""

    models: dict = {  # noqa: RUF012
        "an organism's size": {"hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 8},
        "100 times that": {"hidden_size": 640, "intermediate_size": 1720, "num_hidden_layers": 8},
    }
    samples: int = 100
    tokens: int = 64
    method: str = "snip"


FULL = Sizes()
TOY = Sizes({"a toy": {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}}, 4, 16)


def run(sizes: Sizes = FULL) -> Iterator[Figure]:
    """Yield the seconds of every stage of one job, and the share of the stages before the method, for each model."""
    from transformers.utils.logging import disable_progress_bar

    from bench.models import SMALL, llama

    disable_progress_bar()

    for name, model in sizes.models.items():
        with tempfile.TemporaryDirectory() as folder:
            made = llama(SMALL | model)
            made.model.save_pretrained(folder)
            made.tokenizer.save_pretrained(folder)
            took = stages(Path(folder), sizes)
            check(Path(folder), made.shapes)
        total = sum(took.values())
        units = sum(rows * columns for rows, columns in made.shapes.values())
        what = f"scoring job ({sizes.method}, {name}: {units:.1e} weights, {sizes.samples} samples), {{}}"
        for stage, value in took.items():
            yield Figure(what.format(stage), value, "s")
        before = total - took["gather"] - took["store"]
        yield Figure(what.format("share of Python, imports and loading"), 100 * before / total, "%")


def stages(folder: Path, sizes: Sizes) -> dict[str, float]:
    """Return the seconds of each of `STAGES` in a fresh process."""
    arguments = (folder, sizes.method, sizes.samples, sizes.tokens, time.time())
    said = command([sys.executable, "-m", "bench.startup", *map(str, arguments)], ROOT).said
    marks = json.loads(said.strip().splitlines()[-1])
    return dict(zip(STAGES, marks, strict=True))


def check(folder: Path, shapes: dict) -> None:
    """Raise ValueError unless the job stored 5 % of every row."""
    from safety_regions.formats.score_file import ScoreFile
    from safety_regions.units.fractions import scope_count

    file = ScoreFile(folder / "scores.parquet")
    for where, (rows, columns) in shapes.items():
        require(len(file.units(where)) == rows * scope_count(KEPT, columns), f"stored scores of {where}")


def job(folder: Path, method: str, n: int, tokens: int, started: float) -> list[float]:
    """Run one scoring job step by step; return the seconds of each of `STAGES`.

    Args:
        started: the value of time.time() when the parent started this process.
    """
    marks = [started, time.time()]
    importlib.import_module("torch")
    marks.append(time.time())
    # transformers imports modules on demand; these names import nearly all that a job needs.
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer  # noqa: F401

    marks.append(time.time())
    from bench.models import samples
    from bench.storage import store
    from safety_regions.model.loading import load_backbone
    from safety_regions.scoring.samples import Samples
    from safety_regions.study.method_shelf import method_cards

    module = importlib.import_module(method_module(method))
    options = {name: option["default"] for name, option in method_cards()[method]["options"].items()}
    marks.append(time.time())
    backbone = load_backbone({"path": str(folder), "template": "native"})
    marks.append(time.time())
    evidence = module.gather(backbone, Samples(samples(n, tokens, backbone.config.vocab_size)), options)
    marks.append(time.time())
    store(
        folder / "scores.parquet", lambda: module.scores(backbone, evidence, options), backbone.shapes, KEPT
    )
    marks.append(time.time())
    return [after - before for before, after in pairwise(marks)]


if __name__ == "__main__":
    folder, method, n, tokens, started = sys.argv[1:]
    print(json.dumps(job(Path(folder), method, int(n), int(tokens), float(started))))
