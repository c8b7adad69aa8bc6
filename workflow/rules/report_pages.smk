"""Pages of the report: prompts that sets share, planted regions, what regions do, what changed since another study;
verdicts, and the first page.

IN   prompts/shared_prompts.parquet, recovery/{organism}.parquet, overlap/iou.parquet, overlap/region_sizes.parquet,
     overlap/{cell}.{pools,cores,sample_sizes,crossed}.parquet, behaviour/{effects,transfer}.parquet
OUT  report/shared_prompts.html, report/recovery.html, report/behaviour.html (each with a tsv), report/verdict.tsv,
     report/compared/{study}.html and its tables, report/index.html (holds or links everything below report/)
"""

# Cells with tables of pools, of cores, of blocks of prompts, and of crossed responses: either all cells or none.
POOLED = CELLS if POOL_STEPS else []
CORED = CELLS if STUDY.regroupings else []
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
        recovery=collect("<results>/recovery/{organism}.parquet", organism=RECOVERED),
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
        base_reading=base_reading_methods(STUDY),
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


rule write_verdict:
    input:
        iou="<results>/overlap/iou.parquet",
        sizes="<results>/overlap/region_sizes.parquet",
        pools=collect("<results>/overlap/{cell}.pools.parquet", cell=POOLED),
        cores=collect("<results>/overlap/{cell}.cores.parquet", cell=CORED),
        blocks=collect("<results>/overlap/{cell}.sample_sizes.parquet", cell=BLOCKED),
        crossed=collect("<results>/overlap/{cell}.crossed.parquet", cell=CROSSED),
        recovery=collect("<results>/recovery/{organism}.parquet", organism=RECOVERED),
    output:
        tsv=shown("verdict.tsv", "1 Summary", "verdicts"),
    log:
        "<logs>/write_verdict.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        names=sorted(STUDY.identification),
        beside={
            "pools": POOLED,
            "cores": CORED,
            "blocks": BLOCKED,
            "crossed": CROSSED,
            "recovery": RECOVERED,
        },
        data_free=data_free_methods(STUDY),
        base_reading=base_reading_methods(STUDY),
        code=script_version("write_verdict.py"),
    message:
        "Writing the verdict on every cell"
    script:
        "../scripts/write_verdict.py"


rule compare_studies:
    input:
        iou="<results>/overlap/iou.parquet",
        verdict="<results>/report/verdict.tsv",
        regions=made_files("<results>")["regions"],
        weights=made_files("<results>")["weights"],
        other_iou=lambda wc: f"{STUDY.compare_with[wc.study]}/overlap/iou.parquet",
        other_verdict=lambda wc: f"{STUDY.compare_with[wc.study]}/report/verdict.tsv",
        other_regions=lambda wc: made_elsewhere(wc.study, "regions"),
        other_weights=lambda wc: made_elsewhere(wc.study, "weights"),
    output:
        html=shown_of_studies("{study}.html", "what changed"),
        tsv=shown_of_studies("{study}.tsv", "what changed"),
        answers=shown_of_studies("{study}.answers.tsv", "answers that changed"),
    log:
        "<logs>/compare_studies/{study}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        other=lambda wc: stamp(
            f"{STUDY.compare_with[wc.study]}/{table}" for table in COMPARED_TABLES
        ),
        code=script_version("compare_studies.py"),
    message:
        "Comparing this study with {wildcards.study}"
    script:
        "../scripts/compare_studies.py"


rule write_index:
    input:
        parts=PARTS,
        verdict="<results>/report/verdict.tsv",
        refusals="<results>/report/refusals.tsv",
        shared="<results>/report/shared_prompts.tsv",
        effects=["<results>/report/behaviour.tsv"] if BEHAVIOUR_TABLES else [],
        constraint=["<results>/report/constraint.tsv"] if BEHAVIOUR_TABLES else [],
        responses=collect(
            "<results>/responses/{backbone}/{dataset}.parquet",
            backbone=STUDY.backbones,
            dataset=STUDY.identification[0],
        ),
        gguf=collect(
            "<results>/checkpoints/{name}/{file}",
            name=[name for name, card in STUDY.models.items() if "gguf" in card],
            file=GGUF_FILE,
        ),
    output:
        html=shown("index.html", "1 Summary", "first page"),
    log:
        "<logs>/write_index.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        backbones=backbone_facts(STUDY),
        methods=method_facts(STUDY),
        terms=study_facts(STUDY),
        data_free=data_free_methods(STUDY),
        config=yaml.safe_dump(config, sort_keys=False, allow_unicode=True),
        benchmarks=workflow.pathvars.apply("<benchmarks>"),
        gpus=lambda wc: {name: gpus_of(name) or 0 for name in STUDY.backbones},
        files=RESULT_FILES,
        code=script_version("write_index.py"),
    message:
        "Writing the first page"
    script:
        "../scripts/write_index.py"
