"""Subtract a utility region from regions."""

from collections.abc import Mapping
from pathlib import Path

from safety_regions.joblog import logged

Paths = Mapping[str, str | Path]


def refine_regions(regions: Paths, outputs: Paths, utility: str | Path, like: Paths, scores: Paths) -> None:
    """Write each region without the units of the region at ``utility``.

    Args:
        regions, outputs: name -> file of the region, and of the refined region.
        like, scores: names of shuffled statistics -> the refined region whose size each gets, and its score table.
            A region of ``like`` may be one of the ``outputs`` of an earlier name.
    """
    from safety_regions.formats.region import write_region
    from safety_regions.formats.subspaces import read_any_region
    from safety_regions.regions.refine import keep_as_many, subtract_region

    removed = read_any_region(utility)
    for name, path in regions.items():
        refined = subtract_region(read_any_region(path), removed)
        if name in like:
            refined = keep_as_many(refined, read_any_region(like[name]), scores[name])
        write_region(outputs[name], refined)


if __name__ == "__main__":
    from safety_regions.formats.files import frame_files, named_files

    with logged(snakemake.log[0]):
        p, files, out = snakemake.params, snakemake.input, snakemake.output
        if out.get("frame"):
            regions, outputs = (
                frame_files(folder, p.names, ".safetensors") for folder in (files.frame, out.frame)
            )
        else:
            regions, outputs = ({p.names[0]: path} for path in (files.region, out.region))
        like = {name: outputs.get(whole) or files.like[0] for name, whole in p.like.items()}
        scores = named_files(list(p.like), files.scores, ".parquet")
        refine_regions(regions, outputs, files.utility, like, scores)
