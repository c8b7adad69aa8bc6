"""Subtract a utility region from a region."""

from pathlib import Path

from safety_regions.joblog import logged


def refine_region(
    region: str | Path,
    utility: str | Path,
    output: str | Path,
    like: str | Path | None = None,
    scores: str | Path | None = None,
) -> None:
    """Write the region at ``region`` without the units of the region at ``utility``.

    Args:
        like, scores: for a region of shuffled statistics, the refined region whose size it gets, and its score table.
    """
    from safety_regions.formats.region import write_region
    from safety_regions.formats.subspaces import read_any_region
    from safety_regions.regions.refine import keep_as_many, subtract_region

    refined = subtract_region(read_any_region(region), read_any_region(utility))
    write_region(output, keep_as_many(refined, read_any_region(like), scores) if like else refined)


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        files, out = snakemake.input, snakemake.output
        like, scores = (
            next(iter(given), None) for given in (files.like, files.scores)
        )  # lists of one, or empty
        refine_region(files.region, files.utility, out.region, like, scores)
