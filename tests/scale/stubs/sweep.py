"""This stub replaces sweep.py: the range that it writes is the layer where the gap opens."""

from safety_regions.joblog import logged

with logged(snakemake.log[0]):
    import pyarrow as pa

    from safety_regions.formats.contracts import LAYER_SWEEP
    from safety_regions.formats.parquet import read_metadata, write_table

    metadata = read_metadata(snakemake.input.scores[0])
    first, last = metadata["found"]["gap"]
    columns = {
        "alpha": [1.1],
        "bound": ["none"],
        "first_layer": [first],
        "last_layer": [last],
        "refusals": [0],
    }
    found = {"range": [first, last]}
    write_table(snakemake.output.sweep, pa.table(columns), LAYER_SWEEP, {**metadata, "found": found})
