"""Select regions from score tables: the units with the best scores within each scope, or a method's own selection."""

from collections.abc import Sequence
from pathlib import Path

from safety_regions.joblog import logged


def select_regions(
    scores: Sequence[str | Path], outputs: Sequence[str | Path], selection: str, allow_empty: bool,
    method: str | None = None, sweeps: Sequence[str | Path] = (),
) -> None:  # fmt: skip
    """Write the region that ``selection`` takes from each score table.

    Args:
        scores, outputs: score tables, and a file for the region of each.
        selection: scope and fraction, e.g. ``row-0.05``; or one of the method's own, e.g. ``common-0.2``.
        allow_empty: accept scope units, or modules, none of whose units are selected.
        method: module name of the method whose own selection it is.
        sweeps: a table per score table, if the method's selection needs a sweep.
    """
    from safety_regions.formats.region import write_region
    from safety_regions.methods import load_select
    from safety_regions.regions.select import select_region
    from safety_regions.units.selections import parse_selection

    own = load_select(method) if method else None
    for number, (table, output) in enumerate(zip(scores, outputs, strict=True)):
        if own:
            region = own(table, selection, sweeps[number] if sweeps else None, allow_empty)
        else:
            region = select_region(table, *parse_selection(selection), allow_empty=allow_empty)
        write_region(output, region)


if __name__ == "__main__":
    from safety_regions.formats.files import frame_files, named_files

    with logged(snakemake.log[0]):
        p, files, out = snakemake.params, snakemake.input, snakemake.output
        tables = list(named_files(p.names, files.scores, ".parquet").values())
        region = out.get("region")
        outputs = [region] if region else frame_files(out.frame, p.names, ".safetensors").values()
        select_regions(
            tables, list(outputs), snakemake.wildcards.selection, p.allow_empty, p.method, files.sweep
        )
