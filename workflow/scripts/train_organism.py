"""Train an organism: helpful on everything first, then aligned to refuse harmful prompts."""

from pathlib import Path

from safety_regions.joblog import logged

with logged(snakemake.log[0]):
    from safety_regions.formats.contracts import PROMPTS, TRAINING_LOG
    from safety_regions.formats.parquet import read_table, write_table
    from safety_regions.training.organism import train_organism

    prompts = {Path(path).stem: read_table(path, PROMPTS) for path in snakemake.input.prompts}
    directory, name = Path(snakemake.output.truth).parent, snakemake.wildcards.organism
    log = train_organism(snakemake.params.card, prompts, directory, name)
    write_table(snakemake.output.log, log, TRAINING_LOG, {"organism": name})
