"""Read one dataset into the common prompts table."""

from pathlib import Path

from safety_regions.joblog import logged


def read_prompts(
    dataset: str,
    card: dict,
    output: str | Path,
    *,
    seed: int,
    evaluate_fraction: float,
    data_dir: str | Path | None = None,
) -> None:
    """Write the prompts of the dataset that ``card`` describes, ``evaluate_fraction`` (0-1) of them held out.

    Args:
        data_dir: folder with files of datasets that are neither embedded nor on the Hub.
    """
    from safety_regions.formats.contracts import PROMPTS
    from safety_regions.formats.parquet import write_table
    from safety_regions.prompts import reading
    from safety_regions.study.catalog import CATALOG

    folders = {"data_dir": Path(data_dir) if data_dir else None, "catalog_dir": CATALOG}
    splitting = {"seed": seed, "evaluate_fraction": evaluate_fraction}
    table, metadata = reading.read_prompts(dataset, card, **folders, **splitting)
    write_table(output, table, PROMPTS, metadata)


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        p, dataset = snakemake.params, snakemake.wildcards.dataset
        read_prompts(
            dataset=dataset, card=p.card, seed=p.seed, evaluate_fraction=p.evaluate_fraction,
            data_dir=p.data_dir, output=snakemake.output.prompts,
        )  # fmt: skip
