"""This stub replaces score.py: it draws small score tables from the names of backbone, method and set."""

from safety_regions.joblog import logged

with logged(snakemake.log[0]):
    from small_backbone import PROMPTS, draw_scores, score_groups, scored_shapes, weight_shapes

    from safety_regions.formats.contracts import score_contract
    from safety_regions.formats.parquet import write_groups
    from safety_regions.study.method_shelf import method_cards

    p, w = snakemake.params, snakemake.wildcards
    card = method_cards()[p.method]
    granularity, shapes = card["granularity"], scored_shapes(card["granularity"])
    name, out = w.name, snakemake.output
    scores = {where: draw_scores(w.backbone, w.method, name, where, shape) for where, shape in shapes.items()}
    best = [int(values.argmax()) for values in scores.values()]
    metadata = {
        "backbone": w.backbone, "label": w.method, "name": name, "method": p.method, "options": p.options,
        "granularity": granularity, "kept": p.kept, "shapes": shapes, "weight_shapes": weight_shapes(),
        "samples_used": PROMPTS, "samples_skipped": {}, "response_tokens": 5 * PROMPTS,
        "found": {"gap": [best[0], best[0]]} if granularity == "layer" else {},
    }  # fmt: skip
    write_groups(out.scores, score_groups(granularity, scores), score_contract(granularity), metadata)
    sampled = {} if granularity == "layer" else scores  # all units: there are few
    write_groups(
        out.sample, score_groups(granularity, sampled), score_contract(granularity), metadata | {"kept": {}}
    )
