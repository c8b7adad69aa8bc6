"""Read one dataset into the common prompts table."""

from pathlib import Path

from safety_regions.joblog import logged

with logged(snakemake.log[0]):
    from safety_regions.formats.contracts import PROMPTS
    from safety_regions.formats.parquet import write_table
    from safety_regions.prompts.reading import read_prompts
    from safety_regions.study.catalog import CATALOG

    p = snakemake.params
    table, stamp = read_prompts(
        snakemake.wildcards.dataset,
        p.card,
        data_dir=Path(p.data_dir) if p.data_dir else None,
        catalog_dir=CATALOG,
        seed=p.seed,
        evaluate_fraction=p.evaluate_fraction,
    )
    write_table(snakemake.output.prompts, table, PROMPTS, stamp)
