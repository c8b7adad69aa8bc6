"""This stub replaces write_responses.py: all answers are the same, and every second one is marked as a refusal."""

from safety_regions.joblog import logged

with logged(snakemake.log[0]):
    import pyarrow as pa

    from safety_regions.formats.contracts import PROMPTS, RESPONSES
    from safety_regions.formats.parquet import read_table, write_table

    rows = read_table(snakemake.input.prompts, PROMPTS).to_pydict()
    n = len(rows["text"])
    columns = {
        **{name: rows[name] for name in ("prompt_id", "dataset", "split", "half")},
        "prompt": rows["text"],
        "response": ["One, two, three."] * n,
        "origin": ["backbone"] * n,
        "refused": [number % 2 == 0 for number in range(n)],
        "n_tokens": [5] * n,
        "stop": ["eos"] * n,
    }
    metadata = {
        **{"backbone": snakemake.wildcards.backbone, "max_new_tokens": snakemake.params.max_new_tokens},
        **{"source": "stub", "revision": None, "dtype": "float32", "temperature": 0.0, "template": "raw"},
        **{"template_options": {}, "system_prompt": None, "date": "2024-07-26", "prompt_frame": "{prompt}"},
    }
    write_table(snakemake.output.responses, pa.table(columns), RESPONSES, metadata)
