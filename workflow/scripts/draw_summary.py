"""Write the report's first page: the verdict on every cell, its numbers, and what was studied."""

from safety_regions.joblog import logged

with logged(snakemake.log[0]):
    from safety_regions.formats.contracts import POOLS, RECOVERY, REGION_SIZES, SAMPLE_SIZES
    from safety_regions.formats.parquet import read_table
    from safety_regions.report.files import save_text, save_tsv
    from safety_regions.report.pages.summary import summary_page
    from safety_regions.report.verdict.measure import measure, model_pairs

    p, files, out = snakemake.params, snakemake.input, snakemake.output
    iou, sizes = model_pairs(files.iou), read_table(files.sizes, REGION_SIZES)
    pools = {cell: read_table(path, POOLS) for cell, path in zip(p.pooled, files.pools, strict=True)}
    blocks = {
        cell: read_table(path, SAMPLE_SIZES) for cell, path in zip(p.blocked, files.blocks, strict=True)
    }
    recovery = {
        name: read_table(path, RECOVERY) for name, path in zip(p.planted, files.recovery, strict=True)
    }
    verdicts = measure(iou, sizes, p.names, pools, blocks, recovery)
    save_tsv(out.tsv, verdicts)
    save_text(out.html, summary_page(verdicts, p.facts, p.files))
