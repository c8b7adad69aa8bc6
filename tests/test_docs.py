"""The pages of the site: what is generated equals its sources, and every command of the pages is planned.

`make test-scale` also runs the studies of the tutorial and of a reader's own region.
"""

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest
import yaml

from safety_regions.formats import contracts
from safety_regions.study.catalog import schema
from safety_regions.study.method_shelf import method_cards
from tests.paths import ROOT
from tests.workflow.conftest import Project, make_project

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += [ROOT / "config/README.md", ROOT / "profiles/README.md", ROOT / "tests/README.md"]


@cache
def reference():
    spec = importlib.util.spec_from_file_location("reference", ROOT / ".ci/reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows_of(page: str) -> list[list[str]]:
    """Return the rows of all tables of a page, without their headers."""
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    cells = [re.split(r"(?<!\\) \| ", line[2:-2]) for line in lines]
    return [
        row for row, below in zip(cells, [*cells[1:], []], strict=False) if set(row) != {"---"} != set(below)
    ]


def leaves(rules: dict, place: str = "") -> set[str]:
    """Return the paths of all keys that a schema names anywhere under `properties`, read literally."""
    found = set()
    for key, value in rules.items():
        if key == "properties":
            for name, rule in value.items():
                found |= {f"{place}{name}"} | (
                    leaves(rule, f"{place}{name}: ") if isinstance(rule, dict) else set()
                )
        elif key == "additionalProperties" and isinstance(value, dict):
            found |= leaves(value, f"{place}NAME: ")
        elif key == "items":
            found |= leaves(value, place)
    return found


def test_the_reference_has_every_key_of_a_config_with_its_default_and_meaning():
    rows = {row[0].strip("`"): row[1:] for row in rows_of(reference().config_page())}
    assert rows.keys() == leaves(schema("config")) and len(rows) > 80
    assert rows["samples: identify"][:2] == ["integer, at least 1", "100"]
    assert rows["backbones"][:2] == ["list of text", "required"]
    assert rows["behaviour: constraint: NAME: start"][:2] == ["aligned, base", "aligned"]
    for name, rule in schema("config")["properties"].items():
        assert rows[name][2] == " ".join(rule.get("description", "").split()).replace("|", "\\|")


def test_the_reference_has_every_key_of_every_card():
    page = reference().cards_page()
    for kind in reference().CARDS:
        section = page.partition(f"## {schema(kind)['title']}\n")[2].partition("\n## ")[0]
        assert {*schema(kind)["properties"]} <= {row[0].strip("`") for row in rows_of(section)}, kind


def test_the_reference_has_every_option_of_every_method():
    page = reference().methods_page()
    for name, card in method_cards().items():
        rows = rows_of(page.partition(f"\n## {name}\n")[2].partition("\n## ")[0])
        assert [row[0].strip("`") for row in rows] == [*card["options"], *card["presets"]]
        assert all(row[-1] for row in rows), name


def test_the_reference_has_every_column_of_every_table_in_order():
    page = reference().tables_page()
    tables = {name: one for name, one in vars(contracts).items() if isinstance(one, contracts.Contract)}
    assert re.findall(r"^## (\w+)$", page, re.MULTILINE) == list(tables) and len(tables) > 20
    for name, contract in tables.items():
        rows = rows_of(page.partition(f"\n## {name}\n")[2].partition("\n## ")[0])
        assert [row[0].strip("`") for row in rows] == contract.schema.names
        assert all(row[1] and row[2] for row in rows)


def test_the_navigation_has_five_groups_and_every_page():
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    groups = {name: part for entry in nav for name, part in entry.items() if isinstance(part, list)}
    assert list(groups) == ["Tutorial", "How-to", "Reference", "Explanation", "Results"]
    listed = [path for part in groups.values() for entry in part for path in entry.values()]
    stored = {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert sorted(listed) == sorted(stored | {*reference().PAGES})


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(), re.DOTALL | re.MULTILINE)


def commands(pages: Sequence[Path] = PAGES) -> list[str]:
    """Return every command line of pages, each once, without comments."""
    lines = [line for page in pages for block in blocks(page, "sh") for line in block.splitlines()]
    plain = [re.sub(r"(^|\s+)#.*$", "", line).strip() for line in lines]
    return [line for line in dict.fromkeys(plain) if line]


def snakemakes() -> list[str]:
    return [line for line in commands() if shlex.split(line)[0] == "snakemake"]


def test_every_command_of_the_pages_is_of_a_known_kind():
    """Snakemake's are planned below, targets of make exist; the others are tools that cannot be run here."""
    others = {
        "docker",
        "rsync",
        "generate-slurm-partition-config",
        ".venv/bin/pip",
        ".",
        "bash",
        "cp",
        "python",
    }
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    found = commands()
    assert len(found) > 20
    for line in found:
        tool, *arguments = shlex.split(line)
        assert tool in {"snakemake", "make", *others}, line
        assert tool != "make" or set(arguments) <= targets, line


@pytest.mark.slow
def test_every_snakemake_command_has_options_that_exist():
    from snakemake.cli import get_argument_parser

    rules = "\n".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    for line in snakemakes():
        parsed = get_argument_parser().parse_args(shlex.split(line)[1:])
        for rule in [*(parsed.until or ()), *(parsed.forcerun or ())]:
            assert re.search(rf"^rule {rule}:", rules, re.MULTILINE), line
        for path in map(str, parsed.configfile or ()):
            assert (ROOT / path).is_file() or path in {name for page in PAGES for name in configs(page)}, line


def configs(page: Path) -> dict[str, str]:
    """Return file name -> content of the configs that a page has: YAML blocks that begin with the name of a file."""
    named = [(re.match(r"# (\S+\.yaml)\n", block), block) for block in blocks(page, "yaml")]
    return {name[1]: block for name, block in named if name}


@pytest.fixture(scope="module")
def reader(tmp_path_factory) -> Project:
    """Return a project in which a reader has followed the pages, with a tiny model in the place of theirs."""
    project = make_project(tmp_path_factory.mktemp("docs") / "project")
    shutil.copy(ROOT / "config.yaml", project.folder)
    shutil.copytree(ROOT / "config", project.folder / "config")
    (project.folder / "tiny").rename(project.folder / "my-model")
    for page in PAGES:
        for name, text in configs(page).items():
            (project.folder / name).write_text(text)
    (make_queries,) = [
        block for block in blocks(ROOT / "docs/tutorial-2.md", "python") if "make_queries.py" in block
    ]
    subprocess.run([sys.executable, "-c", make_queries], cwd=project.folder, check=True)
    (method,) = blocks(ROOT / "docs/tutorial-3.md", "python")
    (project.folder / "safety_regions/methods/relative.py").write_text(method)
    (project.folder / "my-region.safetensors").touch()
    return project


QUICK = ("tutorial-2.md", "tutorial-3.md", "given-regions.md")
"""Pages whose commands make test plans; make test-scale plans those of all pages."""


def planned_once(pages: list[Path]) -> list[str]:
    """Return the snakemake commands of pages that plan something else than those before them."""
    how = r" --dry-run| --quiet rules| --cores \d+| --resources gpu=\d+| --workflow-profile \S+"
    lines = [
        re.sub(how, "", line) for page in pages for line in commands([page]) if line.startswith("snakemake")
    ]
    return [line for line in dict.fromkeys(lines) if "--unlock" not in line]


@pytest.mark.slow
@pytest.mark.parametrize("line", planned_once([ROOT / "docs" / name for name in QUICK]))
def test_the_studies_of_the_tutorial_and_of_own_regions_are_planned(reader, line):
    jobs = reader.plan(*shlex.split(line)[1:])
    assert jobs["score"] > 1 and jobs["write_index"] == 1


@pytest.mark.scale
def test_the_studies_of_the_tutorial_and_of_own_regions_run(reader):
    """As the pages say it, but with the organism of the first study alone in place of the whole study."""
    trained = "results/organisms/organism-llama"
    reader.run(f"{trained}/model.safetensors")
    shutil.rmtree(reader.folder / "my-model")
    shutil.copytree(reader.folder / trained, reader.folder / "my-model")
    (write_region,) = blocks(ROOT / "docs/given-regions.md", "python")
    subprocess.run(
        [sys.executable, "-c", write_region], cwd=reader.folder, env=reader.environment, check=True
    )
    overlap = reader.folder / "results/overlap/my-model"
    for page, matrix, names in (
        ("tutorial-2.md", overlap / "snip/row-0.05/raw.iou.tsv", ["fraud", "my-queries"]),
        ("tutorial-3.md", overlap / "methods/fraud.iou.tsv", ["relative", "snip"]),
    ):
        run_page(reader, page)
        header, *rows = [line.split("\t") for line in matrix.read_text().splitlines()]
        assert header == ["name", *names] and [row[0] for row in rows] == names
        assert 0.1 < float(rows[0][2]) == float(rows[1][1]) < 0.9
    run_page(reader, "given-regions.md")
    assert "given / mine" in (reader.folder / "results/report/behaviour.html").read_text()


def run_page(reader: Project, page: str) -> None:
    for line in planned_once([ROOT / "docs" / page]):
        reader.run(*shlex.split(line)[1:])


@pytest.mark.scale
@pytest.mark.parametrize(
    "line", planned_once([page for page in PAGES if page.name not in (*QUICK, "module.md")])
)
def test_every_other_command_is_planned(reader, line):
    for path in (reader.folder / "config").glob(
        "*.yaml"
    ):  # no local copies of the sets: they come from the Hub
        path.write_text(re.sub(r"^data_dir: .*$", "", path.read_text(), flags=re.MULTILINE))
    assert reader.plan(*shlex.split(line)[1:])
