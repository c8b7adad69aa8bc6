"""Pages of the report: prompts that sets share, planted regions, and the summary.

IN   prompts/shared_prompts.parquet, recovery/{organism}.parquet, overlap/iou.parquet, overlap/region_sizes.parquet,
     overlap/{cell}.pools.parquet, overlap/{cell}.sample_sizes.parquet, behaviour/{effects,transfer}.parquet
OUT  report/shared_prompts.html, report/recovery.html, report/behaviour.html, report/summary.html (each with a tsv; that of the summary is
     verdict.tsv)
"""

# Cells with tables of pools, of blocks of prompts, and of crossed responses: either all cells or none.
POOLED = CELLS if POOL_STEPS else []
BLOCKED = CELLS if HAS_BLOCKS else []
CROSSED = CELLS if CROSSED_PAIRS else []


rule write_shared_prompts:
    input:
        shared="<results>/prompts/shared_prompts.parquet",
    output:
        html=shown("shared_prompts.html", "2 Prompts", "shared prompts"),
        tsv=shown("shared_prompts.tsv", "2 Prompts", "shared prompts"),
    log:
        "<logs>/write_shared_prompts.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        code=script_version("write_shared_prompts.py"),
    message:
        "Listing shared prompts"
    script:
        "../scripts/write_shared_prompts.py"


rule write_recovery:
    input:
        recovery=collect(
            "<results>/recovery/{organism}.parquet", organism=STUDY.planted
        ),
    output:
        html=shown(
            "recovery.html",
            "6 Recovery",
            "recovery of all planted regions",
            caption="recovery_page",
            backbone="all",
        ),
        tsv=shown(
            "recovery.tsv",
            "6 Recovery",
            "recovery of all planted regions",
            caption="recovery_page",
            backbone="all",
        ),
    log:
        "<logs>/write_recovery.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        cards=planted_cards(STUDY),
        data_free=data_free_methods(STUDY),
        code=script_version("write_recovery.py"),
    message:
        "Writing how well the methods recover planted regions"
    script:
        "../scripts/write_recovery.py"


rule write_behaviour:
    input:
        ablation=behaviour_table("ablation"),
        effects=behaviour_table("effects"),
        transfer=behaviour_table("transfer"),
        constraint=behaviour_table("constraint"),
    output:
        html=shown("behaviour.html", "7 Behaviour", "what regions do", backbone="all"),
        tsv=shown("behaviour.tsv", "7 Behaviour", "what regions do", backbone="all"),
        constraint=shown(
            "constraint.tsv",
            "7 Behaviour",
            "what constraints keep",
            caption="behaviour",
            backbone="all",
        ),
        measures=shown(
            "measures.tsv",
            "7 Behaviour",
            "ranks of measures",
            caption="behaviour",
            backbone="all",
        ),
    log:
        "<logs>/write_behaviour.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        code=script_version("write_behaviour.py"),
    message:
        "Writing what regions do"
    script:
        "../scripts/write_behaviour.py"


rule write_summary:
    input:
        iou="<results>/overlap/iou.parquet",
        sizes="<results>/overlap/region_sizes.parquet",
        pools=collect("<results>/overlap/{cell}.pools.parquet", cell=POOLED),
        blocks=collect("<results>/overlap/{cell}.sample_sizes.parquet", cell=BLOCKED),
        crossed=collect("<results>/overlap/{cell}.crossed.parquet", cell=CROSSED),
        recovery=collect(
            "<results>/recovery/{organism}.parquet", organism=STUDY.planted
        ),
        gguf=collect(
            "<results>/checkpoints/{name}/{file}",
            name=[name for name, card in STUDY.models.items() if "gguf" in card],
            file=GGUF_FILE,
        ),
    output:
        html=shown("summary.html", "1 Summary", "summary"),
        tsv=shown("verdict.tsv", "1 Summary", "summary", caption="summary"),
    log:
        "<logs>/write_summary.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        names=sorted(STUDY.identification),
        beside={
            "pools": POOLED,
            "blocks": BLOCKED,
            "crossed": CROSSED,
            "recovery": STUDY.planted,
        },
        data_free=data_free_methods(STUDY),
        facts=study_facts(STUDY),
        files=RESULT_FILES,
        code=script_version("write_summary.py"),
    message:
        "Writing the summary"
    script:
        "../scripts/write_summary.py"
