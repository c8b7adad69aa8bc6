"""Regions: select the best fraction within each scope, and subtract the region of a utility set.

A frame is a folder with the regions of a dataset's halves and shuffles, which its own region is compared with.

IN   scores/{backbone}/{method}/{name}.parquet, scores/{backbone}/{method}/{dataset}.frame/{name}.parquet
OUT  regions/{backbone}/{method}/{name}/{selection}/{refinement}.safetensors
     regions/{backbone}/{method}/{dataset}/{selection}/{refinement}.frame/{name}.safetensors
"""


rule select_region:
    input:
        scores=lambda wc: scores_of(wc, [wc.name]),
        sweep=[],
    output:
        region="<results>/regions/{backbone}/{method}/{name}/{selection}/raw.safetensors",
    log:
        "<logs>/select_region/{backbone}/{method}/{name}/{selection}.log",
    wildcard_constraints:
        selection=RANKED,
    conda:
        "../../envs/analysis.yaml"
    params:
        names=lambda wc: [wc.name],
        method=None,
        allow_empty=STUDY.allow_empty,
        code=script_version("select_regions.py"),
    message:
        "Selecting {wildcards.selection} of {wildcards.backbone}/{wildcards.method}/{wildcards.name}"
    script:
        "../scripts/select_regions.py"


use rule select_region as select_own with:
    input:
        scores=lambda wc: scores_of(wc, [wc.name]),
        sweep=lambda wc: sweeps_of(wc, [wc.name]),
    log:
        "<logs>/select_own/{backbone}/{method}/{name}/{selection}.log",
    wildcard_constraints:
        selection=OWN_SELECTIONS,
    conda:
        "../../envs/model.yaml"
    params:
        names=lambda wc: [wc.name],
        method=lambda wc: STUDY.methods[wc.method].module,
        allow_empty=STUDY.allow_empty,
        code=lambda wc: own_selection_version(wc.method),


use rule select_region as select_frame with:
    input:
        scores=lambda wc: scores_of(wc, frame_names(wc)),
        sweep=[],
    output:
        frame=directory(
            "<results>/regions/{backbone}/{method}/{dataset}/{selection}/raw.frame"
        ),
    log:
        "<logs>/select_frame/{backbone}/{method}/{dataset}/{selection}.log",
    params:
        names=lambda wc: frame_names(wc),
        method=None,
        allow_empty=STUDY.allow_empty,
        code=script_version("select_regions.py"),
    message:
        "Selecting {wildcards.selection} of halves and shuffles: {wildcards.backbone}/{wildcards.method}/{wildcards.dataset}"


use rule select_own as select_own_frame with:
    input:
        scores=lambda wc: scores_of(wc, frame_names(wc)),
        sweep=lambda wc: sweeps_of(wc, frame_names(wc)),
    output:
        frame=directory(
            "<results>/regions/{backbone}/{method}/{dataset}/{selection}/raw.frame"
        ),
    log:
        "<logs>/select_own_frame/{backbone}/{method}/{dataset}/{selection}.log",
    params:
        names=lambda wc: frame_names(wc),
        method=lambda wc: STUDY.methods[wc.method].module,
        allow_empty=STUDY.allow_empty,
        code=lambda wc: own_selection_version(wc.method),
    message:
        "Selecting {wildcards.selection} of halves and shuffles: {wildcards.backbone}/{wildcards.method}/{wildcards.dataset}"


rule refine_region:
    input:
        region="<results>/regions/{backbone}/{method}/{name}/{selection}/raw.safetensors",
        utility=lambda wc: removed_region(
            wc.backbone, wc.method, wc.utility, wc.selection
        ),
        like=lambda wc: refined_regions(wc, unshuffled(wc, [wc.name]).values()),
        scores=lambda wc: scores_of(wc, unshuffled(wc, [wc.name])),
    output:
        region="<results>/regions/{backbone}/{method}/{name}/{selection}/minus-{utility}.safetensors",
    log:
        "<logs>/refine_region/{backbone}/{method}/{name}/{selection}/minus-{utility}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        names=lambda wc: [wc.name],
        like=lambda wc: unshuffled(wc, [wc.name]),
        code=script_version("refine_regions.py"),
    message:
        "Subtracting the region of {wildcards.utility} from that of {wildcards.backbone}/{wildcards.method}/{wildcards.name}"
    script:
        "../scripts/refine_regions.py"


use rule refine_region as refine_frame with:
    input:
        frame="<results>/regions/{backbone}/{method}/{dataset}/{selection}/raw.frame",
        utility=lambda wc: removed_region(
            wc.backbone, wc.method, wc.utility, wc.selection
        ),
        like=lambda wc: refined_regions(
            wc, {wc.dataset} & set(unshuffled(wc, frame_names(wc)).values())
        ),
        scores=lambda wc: scores_of(wc, unshuffled(wc, frame_names(wc))),
    output:
        frame=directory(
            "<results>/regions/{backbone}/{method}/{dataset}/{selection}/minus-{utility}.frame"
        ),
    log:
        "<logs>/refine_frame/{backbone}/{method}/{dataset}/{selection}/minus-{utility}.log",
    params:
        names=lambda wc: frame_names(wc),
        like=lambda wc: unshuffled(wc, frame_names(wc)),
        code=script_version("refine_regions.py"),
    message:
        "Subtracting the region of {wildcards.utility} from halves and shuffles: {wildcards.backbone}/{wildcards.method}/{wildcards.dataset}"
