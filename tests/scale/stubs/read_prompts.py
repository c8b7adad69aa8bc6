"""This stub replaces read_prompts.py: it writes a few harmless prompts instead of a set from the Hub."""

from safety_regions.joblog import logged

with logged(snakemake.log[0]):
    import pyarrow as pa

    from safety_regions.formats.contracts import PROMPTS
    from safety_regions.formats.parquet import write_table
    from safety_regions.prompts.splitting import split_prompts

    p, dataset = snakemake.params, snakemake.wildcards.dataset
    ids = [f"{dataset}/{number:02d}" for number in range(12)]
    places = split_prompts(ids, p.seed, p.evaluate_fraction)
    columns = {
        "prompt_id": [ids[place.number] for place in places],
        "dataset": [dataset] * len(ids),
        "text": [f"Please count to {place.number} for {dataset}" for place in places],
        "category": [None] * len(ids),
        "split": [place.split for place in places],
        "half": [place.half for place in places],
        "response": [None] * len(ids),
    }
    metadata = {"dataset": dataset, "role": p.card["role"]}
    write_table(snakemake.output.prompts, pa.table(columns), PROMPTS, metadata)
