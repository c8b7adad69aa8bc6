"""After a change, Snakemake plans exactly the jobs that the change affects."""

import os

import pandas as pd
import pytest

pytestmark = pytest.mark.slow

AGGREGATION = {
    *("gather_overlaps", "draw_overlap", "draw_refusals", "draw_ladders"),
    *("write_shared_prompts", "write_verdict", "write_index"),
}
SCIENCE = {"read_prompts", "train_organism", "write_responses", "score", "select_region", "refine_region"}


def test_a_finished_study_has_nothing_to_do(project):
    assert project.plan() == {}


def test_a_new_dataset_plans_its_own_jobs_and_the_aggregation(project):
    config = project.config
    config["datasets"]["identification"].append("three")
    project.config = config
    plan = project.plan()
    own = {"read_prompts": 1, "write_responses": 1, "score": 2, "select_region": 2, "refine_region": 2}
    assert {rule: n for rule, n in plan.items() if rule in SCIENCE} == own
    assert plan["count_membership"] == plan["compute_overlap"] == 4
    outputs = project.planned_outputs()
    assert any("/three" in output for output in outputs)
    assert not [output for output in outputs if "/one" in output or "/two" in output]


def test_a_section_on_behaviour_plans_only_behaviour(project):
    project.config = project.config | {"behaviour": {"operations": {"zero": None}, "controls": ["random"]}}
    cells = 4  # two methods, two refinements
    assert project.plan() == {
        "ablate": 2 * cells, "compare_effects": cells, "gather_behaviour": 1, "draw_behaviour": 2,
        "draw_transfer": 2, "write_behaviour": 1, "write_index": 1,
    }  # fmt: skip


def test_another_study_to_compare_with_plans_one_page_and_the_first(project, finished):
    """The other study is this one, so nothing differs, and the files say of all regions that they were made alike."""
    project.config = project.config | {"compare_with": {"before": str(finished.folder / "results")}}
    assert project.plan() == {"compare_studies": 1, "write_index": 1}
    project.run("results/report/compared/before.html", "results/report/index.html")
    rows = pd.read_csv(project.folder / "results/report/compared/before.tsv", sep="\t", keep_default_na=False)
    assert set(rows["comparable"]) == {"yes"} and set(rows["differs"]) == {""}
    assert set(rows["difference"].astype(float)) == {0.0}
    assert "compared/before.html" in (project.folder / "results/report/index.html").read_text()


def test_taking_a_dataset_out_scores_nothing(project):
    config = project.config
    config["datasets"]["identification"] = ["one"]
    project.config = config
    assert not SCIENCE & project.plan().keys()


def test_editing_a_method_plans_that_method_only(project):
    project.edit("safety_regions/methods/wanda.py", "weight.float().abs() *", "weight.float().abs() * 2 *")
    outputs = project.planned_outputs()
    assert {o for o in outputs if "/scores/" in o} == {
        f"results/scores/tiny/wanda/{name}{part}.parquet"
        for name in ("one", "two", "plain")
        for part in ("", ".sample")
    }
    assert not any("/snip/" in o and "/report/" not in o for o in outputs)


def test_editing_the_code_both_methods_share_plans_both(project):
    project.edit("safety_regions/scoring/run.py", "chosen.skipped,", "dict(chosen.skipped),")
    assert project.plan()["score"] == 6


def test_moving_a_module_plans_nothing(project):
    """A module of scoring/ and one of overlap/ are moved to other folders and renamed."""
    project.move("safety_regions/scoring/keep.py", "safety_regions/regions/stored.py")
    project.move("safety_regions/overlap/chance.py", "safety_regions/report/random_regions.py")
    assert project.plan() == {}
    project.edit("safety_regions/report/random_regions.py", "(1 - density)", "(1 - density * 1)")
    assert project.plan()["compute_overlap"] == 4, "an edit of moved code must rerun its jobs"


def test_editing_the_iou_scores_nothing(project):
    project.edit(
        "safety_regions/overlap/iou.py", "def compute_overlap(", "EXTRA = 1\n\n\ndef compute_overlap("
    )
    assert project.plan() == {}, "code that no job reaches must rerun nothing"
    project.edit(
        "safety_regions/overlap/iou.py",
        "    names, groups = counted",
        "    EXTRA  # noqa: B018\n    names, groups = counted",
    )
    plan = project.plan()
    assert plan["compute_overlap"] == 4 and not SCIENCE & plan.keys()


def test_editing_a_template_plans_its_pages_only(project):
    templates = "safety_regions/report/pages/templates"
    project.edit(f"{templates}/shared_prompts.html.j2", "{% if pairs %}", "{% if pairs > 0 %}")
    assert project.plan() == {"write_shared_prompts": 1, "write_index": 1}, "the first page links the other"


def test_editing_the_look_plans_the_pages_that_have_it(project):
    templates = "safety_regions/report/pages/templates"
    project.edit(f"{templates}/index.css.j2", "1.1rem", "1.2rem")
    project.edit(f"{templates}/index.js.j2", "localeCompare(b)", "localeCompare(b, 'en')")
    assert project.plan() == {"write_index": 1}
    project.edit(f"{templates}/style.css.j2", "#1b1b1b", "#222")
    assert project.plan() == {"write_shared_prompts": 1, "write_index": 1}


def test_comments_docstrings_captions_and_profiles_plan_nothing(project):
    project.edit("safety_regions/methods/snip.py", '"""SNIP:', '# A comment.\n"""SNIP, again:')
    project.edit("workflow/scripts/score.py", "from pathlib", "# A comment.\nfrom pathlib")
    project.edit("profiles/default/config.yaml", "keep-going: true", "keep-going: false")
    for caption in (project.folder / "workflow" / "report").glob("*.rst"):
        caption.write_text(caption.read_text() + "\nMore words.\n")
    assert project.plan() == {}


def test_an_option_of_a_method_plans_that_method(project):
    config = project.config
    config["methods"]["snip"] = {"options": {"loss": "sum"}}
    project.config = config
    assert project.plan()["score"] == 3


def test_another_fraction_scores_nothing(project):
    config = project.config
    config["methods"]["snip"] = {"selections": ["row-0.04"]}
    project.config = config
    plan = project.plan()
    assert plan["select_region"] == 3 and "score" not in plan


def test_another_label_title_or_order_plans_no_science(project):
    config = project.config
    config["methods"] = dict(reversed(config["methods"].items()))
    config["cards"]["backbones"]["tiny"]["title"] = "A tiny Llama"
    for name, card in config["cards"]["datasets"].items():
        config["cards"]["datasets"][name] = {
            "note": "None.",
            **dict(reversed(card.items())),
            "title": "Prompts",
        }
    config["data_dir"] = "profiles"  # a folder that no dataset of the study is read from
    project.config = config
    assert not SCIENCE & project.plan().keys()


def test_a_changed_prompt_plans_its_dataset(project):
    project.prompts("two", seed=9)
    plan = project.plan()
    assert plan["read_prompts"] == 1 and plan["score"] == 2 and plan["write_responses"] == 1


def test_a_changed_checkpoint_plans_its_backbone(project):
    from tests.tiny import tiny_model

    tiny_model("llama", seed=1).save_pretrained(project.folder / "tiny")
    plan = project.plan()
    assert plan["write_responses"] == 3 and plan["score"] == 6 and "read_prompts" not in plan


def test_only_files_that_loading_reads_count_as_the_checkpoint(project):
    (project.folder / "tiny/trainer_state.json").write_text("{}")
    (project.folder / "tiny/README.md").write_text("A tiny Llama.")
    assert project.plan() == {}
    template = project.folder / "tiny/chat_template.jinja"
    template.write_text(template.read_text() + "\n")
    assert project.plan()["write_responses"] == 3


def test_files_replaced_by_older_ones_are_noticed(project):
    """As with `cp -p` and `rsync -a`: the new content has a time stamp before that of the results."""
    path = project.folder / "safety_regions/catalog/prompts/two.jsonl"
    tokens = project.folder / "tiny/generation_config.json"
    for file in (path, tokens):
        file.write_text(file.read_text() + "\n")
        os.utime(file, (10**9, 10**9))
    plan = project.plan()
    assert (plan["read_prompts"], plan["write_responses"], plan["score"]) == (1, 3, 6)
