"""Write the first page of a study."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from safety_regions.joblog import logged


def write_index(
    parts: Sequence[str | Path], tables: Mapping[str, Sequence[str | Path]], responses: Sequence[str | Path],
    gguf: Sequence[str | Path], facts: Mapping, benchmarks: str | Path, gpus: Mapping[str, int],
    files: Mapping[str, str], html: str | Path,
) -> None:  # fmt: skip
    """Write the page.

    Args:
        parts: figures and pages of the report; ``tables``: name of a field of `Tables` -> its file, or none.
        responses: a table of each backbone's responses, of which only the metadata is read.
        gguf: what quantised checkpoints were made from; ``facts``: fields of `Studied` that the config determines.
        benchmarks, gpus: of `times_table`; ``files``: path below the results -> contents.
    """
    import pandas as pd

    from safety_regions.formats.parquet import read_metadata
    from safety_regions.report.files import read_tsv, save_text
    from safety_regions.report.pages.figures import read_figures, read_ladders
    from safety_regions.report.pages.index import Studied, Tables, index_page
    from safety_regions.report.pages.studied import times_table, versions
    from safety_regions.study.facts import quantised_weights

    folder = Path(html).parent
    read = Tables(**{name: read_tsv(paths[0]) if paths else pd.DataFrame() for name, paths in tables.items()})
    metadata = {found["backbone"]: found for found in map(read_metadata, responses)}
    terms = {**facts["terms"], **quantised_weights(gguf)}
    times = times_table(benchmarks, gpus)
    studied = Studied(**{**facts, "terms": terms}, metadata=metadata, versions=versions(), times=times)
    ladders, figures = read_ladders(folder, facts["backbones"]), read_figures(parts, folder)
    pages = [str(Path(part).relative_to(folder))[:-5] for part in parts if Path(part).suffix == ".html"]
    save_text(html, index_page(read, ladders, figures, studied, pages, files))


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        p, i = snakemake.params, snakemake.input
        tables = {"verdicts": [i.verdict], "refusals": [i.refusals], "shared": [i.shared]}
        write_index(
            parts=i.parts, tables={**tables, "effects": i.effects, "constraint": i.constraint}, responses=i.responses,
            gguf=i.gguf, facts={name: p[name] for name in ("backbones", "methods", "terms", "data_free", "config")},
            benchmarks=p.benchmarks, gpus=p.gpus, files=p.files, html=snakemake.output.html,
        )  # fmt: skip
