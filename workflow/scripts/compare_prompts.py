"""Find prompts that two datasets of the study share."""

from pathlib import Path

from safety_regions.joblog import logged

with logged(snakemake.log[0]):
    from safety_regions.formats.contracts import PROMPTS, SHARED_PROMPTS
    from safety_regions.formats.parquet import read_table, write_table
    from safety_regions.prompts.sharing import shared_prompts

    tables = {Path(path).stem: read_table(path, PROMPTS) for path in snakemake.input.prompts}
    write_table(snakemake.output.shared, shared_prompts(tables), SHARED_PROMPTS)
