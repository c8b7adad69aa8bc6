"""Create the files of a report that its first page reads: tables, figures, answers of backbones, benchmarks."""

import json
from collections.abc import Sequence
from functools import cache
from itertools import product
from pathlib import Path

import pandas as pd

from safety_regions.formats.contracts import RESPONSES
from safety_regions.formats.parquet import write_table
from safety_regions.report.figures.refusals import refusal_rates
from safety_regions.report.files import read_tsv, save_text, save_tsv
from safety_regions.report.pages.index import Studied, Tables
from safety_regions.report.pages.ladders import draw_ladders, ladder_rows
from safety_regions.report.pages.shared_prompts import shared_counts
from safety_regions.report.verdict.measure import measure
from tests.report import synthetic_tables as synthetic

BACKBONES, METHODS, SELECTION, REFINEMENTS = (
    ("llama", "gemma"),
    ("wanda", "snip"),
    "row-0.05",
    ("raw", "minus-everyday"),
)
NAMES = tuple(sorted(synthetic.NAMES[:3]))
SECRET = "zebra"
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="90" height="60"><rect width="90" height="60"/></svg>'
METADATA = {
    **{"source": "nobody/tiny", "revision": "0123abc", "dtype": "float32", "template": "native"},
    **{"template_options": {"enable_thinking": False}, "system_prompt": None, "date": "2024-07-26"},
    **{"temperature": 0.0, "prompt_frame": "<|user|>{prompt}<|end|>"},
}


@cache
def _measured(methods: tuple[str, ...], with_frames: bool) -> pd.DataFrame:
    cells = list(product(BACKBONES, methods, [SELECTION], REFINEMENTS))
    _, iou, sizes = synthetic.gathered(cells, len(NAMES), with_frames)
    return measure(iou, sizes, NAMES)


def verdicts_of(methods: tuple[str, ...] = METHODS, with_frames: bool = True) -> pd.DataFrame:
    """Return the verdict table of a study, with floors and ceilings if it has frames (see `synthetic.gathered`)."""
    return _measured(methods, with_frames).copy()


def copied(backbones: Sequence[str], methods: Sequence[str]) -> pd.DataFrame:
    """Return the verdict table of any number of backbones and methods, with the same numbers for each."""
    one = verdicts_of().iloc[: len(REFINEMENTS)]
    return pd.concat(
        [one.assign(backbone=b, method=m) for b, m in product(backbones, methods)], ignore_index=True
    )


def rates_of(backbones: Sequence[str] = BACKBONES, methods: Sequence[str] = METHODS) -> pd.DataFrame:
    """Return the table of refusal rates; the backbones refuse most prompts of every set."""
    roles = dict.fromkeys(NAMES, "identification") | {"everyday": "utility"}
    told = [(b, synthetic.responses(d, 0.9, prompt=SECRET)) for b, d in product(backbones, roles)]
    used = {(b, d): dict.fromkeys(methods, 30) for b, d in product(backbones, roles)}
    return refusal_rates(told, roles, used)


def effect(
    backbone: str = "llama", method: str = "snip", more: str = "", not_more: str = "", unknown: str = ""
) -> dict:
    """Return a row of `report.behaviour.behaviour_rows` with these controls."""
    numbers = dict.fromkeys(
        ("low", "random", "random_low", "random_high", "p", "answers", "answers_matched"), 0.25
    )
    rates = dict.fromkeys(("refused", "refused_before", "over_refused", "incoherent"), 0.5)
    return {
        **{"backbone": BACKBONES[0], "method": method, "selection": SELECTION, "refinement": "raw"},
        **{"operation": "base", "dose": 1.0, "n": 16, "effect": -3.25, "high": -1.5, "draws": 19},
        **{
            **numbers,
            **rates,
            "more": more,
            "not_more": not_more,
            "unknown": unknown,
            "conclusion": "as it is",
        },
    }


class SyntheticReport:
    """A study's report in ``folder``: everything but its first page, which goes to ``page``."""

    def __init__(self, folder: Path, svg: str = SVG, verdicts: pd.DataFrame | None = None) -> None:
        self.folder, self.page = folder, folder / "report/index.html"
        verdicts = verdicts_of() if verdicts is None else verdicts
        self.backbones, self.methods = (
            list(dict.fromkeys(verdicts[name])) for name in ("backbone", "method")
        )
        report = self.page.parent
        report.mkdir(parents=True)
        self.answers = [self._answered(backbone) for backbone in self.backbones]
        shared = synthetic.shared({NAMES[:2]: (1, 3)}, NAMES)
        tables = {
            "verdict": verdicts,
            "refusals": rates_of(self.backbones, self.methods),
            "shared_prompts": shared_counts(shared),
            "behaviour": pd.DataFrame([effect(more="random regions")]),
            "constraint": pd.DataFrame(),
            "measures": pd.DataFrame(),
        }
        for name, table in tables.items():
            save_tsv(report / f"{name}.tsv", table)
        for name in ("shared_prompts", "behaviour"):
            save_text(report / f"{name}.html", name)
        cells = [f"{b}/{m}/{SELECTION}" for b, m in product(self.backbones, self.methods)]
        figures = ["refusals", *(f"{cell}/{name}" for cell in cells for name in ("iou", "map", "kway"))]
        figures += [f"{self.backbones[0]}/{self.methods[0]}/{SELECTION}/transfer"]
        for figure in figures:
            self._figure(report / figure, svg)
        for backbone in self.backbones:
            rows = ladder_rows(verdicts, backbone)
            self._figure(report / backbone / "ladder", draw_ladders(rows, backbone, self.methods))
        quantised = {"source": "small.gguf", "tensors": {"Q8_0": 23}}
        save_text(folder / "checkpoints/small-q8/gguf.json", json.dumps(quantised))
        for rule, seconds in (("score", (40, 20)), ("write_responses", (5,))):
            for i, one in enumerate(seconds):
                path = folder.parent / f"benchmarks/{rule}/{self.backbones[0]}/{i}.tsv"
                save_text(path, f"s\th:m:s\tmax_rss\tcpu_time\n{one}.0\t0:00:{one}\t512.0\t{one}.0\n")

    def _figure(self, path: Path, svg: str) -> None:
        save_text(path.with_suffix(".svg"), svg)
        if not path.with_suffix(".tsv").exists():
            save_text(path.with_suffix(".tsv"), "a\tb\n")

    def _answered(self, backbone: str) -> Path:
        path = self.folder / f"responses/{backbone}.parquet"
        table = synthetic.responses(NAMES[0], 0.9, prompt=SECRET)
        write_table(path, table, RESPONSES, {"backbone": backbone, **METADATA})
        return path

    @property
    def facts(self) -> dict:
        """What the config determines."""
        return {
            "backbones": {name: {"kind": "checkpoint", "title": name.title()} for name in self.backbones},
            "methods": {
                name: {"method": name, "title": name.title(), "options": "none"} for name in self.methods
            },
            "terms": {"Seed": ["4711"]},
            "data_free": [],
            "config": "seed: 4711\n",
        }

    @property
    def inputs(self) -> dict:
        """What the script of the page is given."""
        report = self.page.parent
        tables = {
            "verdicts": "verdict",
            "refusals": "refusals",
            "shared": "shared_prompts",
            "effects": "behaviour",
        }
        return {
            "parts": [path for kind in ("svg", "html") for path in sorted(report.rglob(f"*.{kind}"))],
            "tables": {name: [report / f"{file}.tsv"] for name, file in tables.items()} | {"constraint": []},
            "responses": self.answers,
            "gguf": [self.folder / "checkpoints/small-q8/gguf.json"],
            "facts": self.facts,
            "benchmarks": self.folder.parent / "benchmarks",
            "gpus": dict.fromkeys(self.backbones, 0),
            "files": {"there/": "more"},
        }

    @property
    def tables(self) -> Tables:
        report = self.page.parent
        names = ("verdict", "refusals", "shared_prompts", "behaviour", "constraint")
        return Tables(*(read_tsv(report / f"{name}.tsv") for name in names))

    @property
    def studied(self) -> Studied:
        metadata = dict.fromkeys(self.backbones, METADATA)
        return Studied(**self.facts, metadata=metadata, versions={"torch": "1.2.3"}, times=None)
