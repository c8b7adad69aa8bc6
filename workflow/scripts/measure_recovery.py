"""How well the methods' regions and scores recover the region that was planted in an organism."""

from safety_regions.joblog import logged

with logged(snakemake.log[0]):
    import pyarrow as pa

    from safety_regions.formats.contracts import RECOVERY
    from safety_regions.formats.parquet import read_stamp, write_table
    from safety_regions.formats.region import read_region
    from safety_regions.overlap.recovery import recovery_of_region, recovery_of_scores, weight_flags
    from safety_regions.regions.lora_factors import read_factors

    p, files = snakemake.params, snakemake.input
    shapes = {where: tuple(shape) for where, shape in read_stamp(files.scores[0])["weight_shapes"].items()}
    factors = read_factors(files.adapter, p.family, shapes)
    truth = weight_flags(read_region(files.truth), shapes)
    areas = {
        (row["method"], row["name"]): recovery_of_scores(path, truth)
        for row, path in zip(p.scores, files.scores, strict=True)
    }
    rows = []
    for row, path in zip(p.regions, files.regions, strict=True):
        region = read_region(path)
        found = recovery_of_region(weight_flags(region, shapes, factors), truth, region.stamp["scope"])
        rows.append({**row, **found, **areas[row["method"], row["name"]]})
    write_table(snakemake.output.recovery, pa.Table.from_pylist(rows), RECOVERY, dict(snakemake.wildcards))
