"""Write the report's first page: what was studied and what came out."""

from safety_regions.joblog import logged

with logged(snakemake.log[0]):
    from safety_regions.report.files import save_text, save_tsv
    from safety_regions.report.summary import summarize, summary_page
    from safety_regions.tables import IOU, REGION_SIZES, read_table

    p = snakemake.params
    iou, sizes = read_table(snakemake.input.iou, IOU), read_table(snakemake.input.sizes, REGION_SIZES)
    summary = summarize(iou, sizes, p.names)
    save_tsv(snakemake.output.tsv, summary)
    save_text(snakemake.output.html, summary_page(summary, p.facts, p.files))
