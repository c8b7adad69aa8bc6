"""The page of shared prompts: counts for each pair of sets, without any prompt."""

import pandas as pd
import pyarrow as pa

from safety_regions.report.pages.render import Table, render

COUNTS = ["a", "b", "n_a", "n_b", "n_exact", "n_near"]


def shared_counts(shared: pa.Table) -> pd.DataFrame:
    """Return the counts of `contracts.SHARED_PROMPTS` for every pair, most shared first, without prompt ids.

    ``n_near`` counts prompts of a, ``n_near_b`` the prompts of b that they match; one prompt may match several.
    """
    frame = shared.select(COUNTS).to_pandas()
    frame["n_near_b"] = [len(set(ids)) for ids in shared["near_b"].to_pylist()]
    return frame.sort_values(
        ["n_near", "n_exact", "a", "b"], ascending=[False, False, True, True], ignore_index=True
    )


def shared_page(counts: pd.DataFrame) -> str:
    """Render the table of `shared_counts` as a page: pairs that share prompts, and the number of pairs that do not."""
    hits = counts[(counts["n_exact"] > 0) | (counts["n_near"] > 0)]
    header = ["a", "b", "prompts of a", "prompts of b", "exact", "near", "near, % of a", "near, % of b"]
    rows = [
        [
            row.a,
            row.b,
            *map(str, (row.n_a, row.n_b, row.n_exact, row.n_near)),
            f"{100 * row.n_near / row.n_a:.1f}",
            f"{100 * row.n_near_b / row.n_b:.1f}",
        ]
        for row in hits.itertuples()
    ]
    shared = Table(header, rows, numbers=header[2:])
    return render("shared_prompts.html.j2", shared=shared, pairs=len(counts))
