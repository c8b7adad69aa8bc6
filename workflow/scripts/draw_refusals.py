"""Draw how often each backbone refuses each dataset."""

from safety_regions.joblog import logged

with logged(snakemake.log[0]):
    from safety_regions.formats.contracts import RESPONSES
    from safety_regions.formats.parquet import read_stamp, read_table
    from safety_regions.report.figures.refusals import draw_refusals, refusal_rates, samples_used
    from safety_regions.report.files import save_svg, save_tsv

    paths = snakemake.input.responses
    # The texts stay in the file: what is not read cannot be shown.
    columns = ["dataset", "split", "origin", "refused"]
    responses = ((read_stamp(path)["backbone"], read_table(path, RESPONSES, columns)) for path in paths)
    used = samples_used(read_stamp(path) for path in snakemake.input.scores)
    rates = refusal_rates(responses, snakemake.params.roles, used)
    save_tsv(snakemake.output.tsv, rates)
    save_svg(snakemake.output.svg, draw_refusals(rates))
