"""Compare the results of another study with those of this one, and write the page and its tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from safety_regions.joblog import logged

Files = Mapping[str, Sequence[str | Path]]


def compare_studies(
    there: Files, here: Files, study: str, html: str | Path, tsv: str | Path, answers: str | Path
) -> None:
    """Write what changed between two studies.

    Args:
        there, here: the files of each study: one ``iou`` and one ``verdict`` table, ``regions`` and ``weights``; see
            `read_results`.
        study: what the config calls the other study.
        html, tsv, answers: the page, the table of its numbers and that of its answers.
    """
    from safety_regions.report.compared import compare_answers, compare_results, read_results
    from safety_regions.report.files import save_text, save_tsv
    from safety_regions.report.pages.compared import compared_page

    other, own = (
        read_results(files["iou"][0], files["verdict"][0], files["regions"], files["weights"])
        for files in (there, here)
    )
    rows, found = compare_results(other, own), compare_answers(other, own)
    save_tsv(tsv, rows)
    save_tsv(answers, found)
    save_text(html, compared_page(study, rows, found))


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        i, out = snakemake.input, snakemake.output
        here = {"iou": [i.iou], "verdict": [i.verdict], "regions": i.regions, "weights": i.weights}
        there = {key: i[f"other_{key}"] for key in ("regions", "weights")}
        there |= {key: [i[f"other_{key}"]] for key in ("iou", "verdict")}
        compare_studies(there, here, snakemake.wildcards.study, out.html, out.tsv, out.answers)
