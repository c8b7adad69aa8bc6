"""This stub replaces train_adapter.py: it writes placeholder files, since no job of this study reads the adapter."""

from safety_regions.joblog import logged

with logged(snakemake.log[0]):
    import pyarrow as pa

    from safety_regions.formats.contracts import Column, Contract
    from safety_regions.formats.files import finished_at
    from safety_regions.formats.parquet import write_table

    for path in snakemake.output.adapter:
        with finished_at(path) as temporary:
            temporary.write_text("{}\n")
    log = Contract("adapter_log", 0, "training step", (Column("step", pa.int32(), "optimiser step"),))
    write_table(snakemake.output.log, pa.table({"step": [0]}), log, dict(snakemake.wildcards))
