"""What was studied: sets, backbones, versions of software, and the time that jobs took."""

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pandas as pd

import safety_regions
from safety_regions.report.pages.render import Table

PACKAGES = (
    *("torch", "transformers", "tokenizers", "peft", "safetensors", "datasets"),
    *("numpy", "pandas", "pyarrow", "scipy", "matplotlib", "snakemake"),
)
SETS = {
    "prompts used": "Prompts that regions were found with: fewest and most over the methods",
    "refused, %": "Share of the answered prompts that the backbone refuses, with its 95 % interval (Wilson)",
    "held out, refused, %": "The same for prompts that no region was found with",
    "distinct responses": "Different texts among the responses. A set refused in one sentence gives the region of that "
    "sentence",
    "shared prompts, %": "Largest share of the set's prompts that another set has too, exactly or nearly, before "
    "any are dropped",
}
"""Columns of the table of sets, and what each is."""


def sets_table(refusals: pd.DataFrame, shared: pd.DataFrame) -> Table:
    """Each set on each backbone.

    Args:
        refusals: the table of `figures.refusals.refusal_rates`, read back from its file.
        shared: the table of `pages.shared_prompts.shared_counts`, read back from its file.
    """
    used = [name for name in refusals if name.startswith("used_")]
    common, rows = _shared(shared), []
    for (backbone, role, dataset), splits in refusals.groupby(["backbone", "role", "dataset"], sort=False):
        of = {split: one.iloc[0] for split, one in splits.groupby("split")}
        found, held_out = of.get("identify"), of.get("evaluate")
        counts = [] if found is None else [int(n) for n in found[used].dropna()]
        rows.append(
            [
                *(backbone, dataset, role),
                "–" if not counts else "-".join(str(n) for n in sorted({min(counts), max(counts)})),
                *("–" if one is None else _rate(one) for one in (found, held_out)),
                "–" if found is None else f"{found['n_distinct']} of {found['n'] + found['n_unfinished']}",
                common.get(dataset, "0.0"),
            ]
        )
    return Table(["backbone", "set", "role", *SETS], rows, numbers=list(SETS))


def _rate(row: pd.Series) -> str:
    if pd.isna(row["refusal_rate"]):
        return "–"
    rate, low, high = (f"{100 * row[name]:.0f}" for name in ("refusal_rate", "low", "high"))
    return f"{rate} ({low}-{high}) of {row['n']}"


def _shared(counts: pd.DataFrame) -> dict[str, str]:
    """Set -> largest share of its prompts (%) that another set has too, and that set."""
    found: dict[str, tuple[float, str]] = {}
    for row in counts.itertuples():
        for one, other, share in (
            (row.a, row.b, row.n_near / row.n_a),
            (row.b, row.a, row.n_near_b / row.n_b),
        ):
            if share > 0:
                found[one] = max(found.get(one, (0.0, "")), (share, other))
    return {name: f"{100 * share:.1f} ({other})" for name, (share, other) in found.items()}


def backbones_table(metadata: Mapping[str, Mapping], cards: Mapping[str, Mapping]) -> Table:
    """Each backbone: its source, commit, number format and how prompts were put to it.

    Args:
        metadata: backbone -> the metadata of its responses.
        cards: backbone -> ``kind``, ``title``, ``base``; see `study.facts.backbone_facts`.
    """
    header = [
        "backbone",
        "kind",
        "source",
        "commit",
        "dtype",
        "template",
        "system prompt",
        "date",
        "temperature",
    ]
    rows = []
    for name, card in cards.items():
        found = metadata[name]
        base = f"before alignment: {card['base']}" if "base" in card else ""
        rows.append(
            [
                name,
                "; ".join(filter(None, [card["kind"], card.get("title"), base])),
                found["source"],
                found["revision"] or "–",
                found["dtype"],
                "; ".join([found["template"], *_options(found["template_options"])]),
                found["system_prompt"] or "none of the card",
                found["date"],
                f"{found['temperature']:g}",
            ]
        )
    return Table(header, rows)


def _options(options: Mapping) -> list[str]:
    return [f"{key} {value}" for key, value in options.items()]


def methods_table(methods: Mapping[str, Mapping[str, str]]) -> Table:
    """Each method, by its label, without columns that are empty for all; see `study.facts.method_facts`."""
    first = next(iter(methods.values()))
    header = [name for name in first if any(one[name] for one in methods.values())]
    rows = [[label, *(one[name] for name in header)] for label, one in methods.items()]
    return Table(["label", *header], rows)


def versions() -> dict[str, str]:
    """Software -> its version where this runs; packages that are not installed here are left out."""
    found = {"safety-regions": safety_regions.__version__, "Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def times_table(folder: str | Path, gpus: Mapping[str, int]) -> Table | None:
    """What all jobs that load a model took, by rule, from Snakemake's benchmark files; None if there are none.

    Args:
        folder: the folder of the benchmark files, RULE/BACKBONE/....tsv or RULE/BACKBONE.tsv.
        gpus: backbone -> number of GPUs that its jobs ask for; files of other backbones are left out. GPU time is this
            number times the job's time.
    """
    found = []
    for path in sorted(Path(folder).rglob("*.tsv")):
        rule, backbone = path.relative_to(folder).with_suffix("").parts[:2]
        if backbone in gpus:
            runs = pd.read_csv(path, sep="\t", na_values="-")
            wall, memory = float(runs["s"].sum()), float(runs["max_rss"].max())
            found.append((rule, wall, float(runs["cpu_time"].sum()), wall * gpus[backbone], memory))
    if not found:
        return None
    jobs = pd.DataFrame(found, columns=["rule", "wall", "cpu", "gpu", "memory"])
    by_rule = sorted(jobs.groupby("rule"), key=lambda item: -item[1]["wall"].sum())
    rows = [_row_of_times(name, of_rule) for name, of_rule in (*by_rule, ("all", jobs))]
    numbers = ["jobs", "time in all", "longest job", "processor time", "GPU time", "most memory, GB"]
    return Table(["rule", *numbers], rows, numbers=numbers)


def _row_of_times(name: str, jobs: pd.DataFrame) -> list[str]:
    memory = jobs["memory"].max()
    times = (jobs["wall"].sum(), jobs["wall"].max(), jobs["cpu"].sum(), jobs["gpu"].sum())
    return [name, str(len(jobs)), *map(_hours, times), "–" if pd.isna(memory) else f"{memory / 1024:.1f}"]


def _hours(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
