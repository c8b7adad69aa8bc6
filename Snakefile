"""safety-regions: which parameters of a language model carry refusal, and are such regions real?

The includes follow the order of the data: prompts, backbones and their responses, adapters, scores, regions, overlap,
recovery, behaviour, report. A study is one config file: the one given with --configfile, otherwise `config.yaml`.
"""

from snakemake.utils import min_version

min_version("9.12")

if not workflow.overwrite_configfiles:

    configfile: "config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/common_behaviour.smk"
include: "workflow/rules/prompts.smk"
include: "workflow/rules/backbones.smk"
include: "workflow/rules/adapters.smk"
include: "workflow/rules/scores.smk"
include: "workflow/rules/regions.smk"
include: "workflow/rules/sweep.smk"
include: "workflow/rules/overlap.smk"
include: "workflow/rules/recovery.smk"
include: "workflow/rules/behaviour.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/report_overlap.smk"
include: "workflow/rules/report_figures.smk"
include: "workflow/rules/report_pages.smk"


rule all:
    default_target: True
    input:
        "<results>/overlap/iou.parquet",
        "<results>/prompts/shared_prompts.parquet",
        collect("<results>/overlap/{cell}.{table}", cell=CELLS, table=CELL_TABLES),
        collect("<results>/recovery/{organism}.parquet", organism=RECOVERED),
        collect("<results>/behaviour/{table}.parquet", table=BEHAVIOUR_TABLES),
        collect("<results>/exported/{model}/model.safetensors", model=EXPORTED),
        REPORT,
    localrule: True


onsuccess:
    if has_first_page():
        print(FAREWELL)
