"""The first page must show what the tables say, need no other file, and be usable by keyboard and screen reader."""

import gzip
import re
from base64 import b64decode
from collections import Counter
from itertools import pairwise

import pandas as pd
import pytest

from safety_regions.report.files import read_tsv, save_tsv
from safety_regions.report.pages import index, studied
from safety_regions.report.pages.figures import INSIDE, TITLES, pack, read_figures, read_ladders
from safety_regions.report.pages.index import OPEN, index_page
from safety_regions.report.pages.numbers import COLUMNS, number_rows, shown_columns
from safety_regions.report.pages.shared_prompts import shared_counts
from safety_regions.report.verdict.sentences import SETS, finding_of
from tests.paths import ROOT
from tests.report import synthetic_tables as synthetic
from tests.report.shown import Elements, links_of
from tests.report.synthetic_report import METADATA, NAMES, SVG, SyntheticReport, copied, effect, verdicts_of

TEMPLATES = ROOT / "safety_regions/report/pages/templates"
MOST = 10e6
"""Bytes of the page of the paper's grid."""


def written(report: SyntheticReport, **changes) -> str:
    figures = read_figures(report.inputs["parts"], report.page.parent)
    tables = report.tables._replace(**changes)
    files = {"overlap/iou.parquet": "every IoU", "regions/BACKBONE/NAME": "regions"}
    pages = ["shared_prompts", "behaviour"]
    ladders = read_ladders(report.page.parent, report.backbones)
    return index_page(tables, ladders, figures, report.studied, pages, files)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return SyntheticReport(tmp_path_factory.mktemp("report") / "results")


@pytest.fixture(scope="module")
def page(report):
    return written(report)


def table_rows(page: str, within: str) -> list[list[str]]:
    """Return the texts of the cells of a section's table rows, without tags."""
    section = page.partition(f'<section id="{within}">')[2].partition("</section>")[0]
    rows = re.findall(r"<tr>(.*?)</tr>", section, re.DOTALL)
    cells = (re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows)
    return [[" ".join(re.sub("<[^>]+>", " ", cell).split()) for cell in row] for row in cells]


def test_the_table_shows_every_number_and_verdict(report, page):
    verdicts = report.tables.verdicts
    heads, *rows = table_rows(page, "numbers")
    columns = shown_columns(verdicts)
    assert heads[:4] == ["backbone", "method", "selection", "refinement"]
    assert heads[5:] == [column.header for column in columns]
    assert len(rows) == len(verdicts) == 8
    for row, record in zip(rows, verdicts.to_dict("records"), strict=True):
        assert row[:4] == [record[name] for name in ("backbone", "method", "selection", "refinement")]
        assert row[4] == f"{finding_of(SETS, record)} {record['verdict']}"
        assert row[5:] == [" ".join(column.text(record).split()) for column in columns]


def test_numbers_are_written_with_their_standard_error():
    verdicts = verdicts_of()
    row = number_rows(verdicts, list(COLUMNS))[0]
    texts = dict(zip((column.header for column in COLUMNS), row.texts, strict=True))
    one = verdicts.iloc[0]
    assert texts["IoU, median"] == f"{one['iou']:.3f} ± {one['iou_se']:.3f}"
    assert texts["IoU, range"] == f"{one['iou_min']:.3f}-{one['iou_max']:.3f}"
    assert texts["floor"] == f"{one['floor']:.3f}" and texts["pairs"] == "3 of 3"
    assert texts["prompts per set"] == f"{one['n_smallest']:.0f}-100"
    assert texts["two blocks of one set"] == "–"


def test_columns_without_a_number_are_left_out():
    shown = shown_columns(verdicts_of(with_frames=False))
    assert [column.header for column in shown] == [
        "IoU, median",
        "IoU, range",
        "chance",
        "region size, %",
        "pairs",
    ]


def test_every_column_is_explained_where_it_is_pointed_at(page):
    elements = Elements(page)
    said = {attributes.get("id") for _, attributes in elements.found}
    headings = [b for b in elements.of("button") if "data-about" in b]
    assert len(headings) == len(shown_columns(verdicts_of())) + 1
    assert all(b["aria-describedby"] == b["data-about"] in said for b in headings)


def test_a_study_with_every_measurement_has_an_explanation_of_every_column(report):
    """A column that the template does not explain is an error of the template."""
    verdicts = report.tables.verdicts.copy()
    for name in verdicts.columns[verdicts.isna().any()]:
        verdicts[name] = 0.5
    headers = [column.header for column in shown_columns(verdicts)]
    assert headers == [column.header for column in COLUMNS]
    page = written(report, verdicts=verdicts)
    assert all(f"<dt>{header}</dt>" in page for header in headers)


def test_what_regions_do_is_shown_only_where_they_were_changed(report, page):
    assert "-3.25 (0.25 to -1.50)" in page and 'href="#behaviour"' in page
    without = written(report, effects=pd.DataFrame())
    assert 'id="behaviour"' not in without and 'href="#behaviour"' not in without
    assert "<code>behaviour</code>" in without and "<code>behaviour</code>" not in page


def test_constrained_training_is_shown(report):
    kept = {"kept": 1.5, "beyond": 0.5}
    ends = {f"{name}_{end}": value for name, value in kept.items() for end in ("low", "high")}
    row = effect() | {"plan": "ordinary", "arm": "freeze", "learning_rate": 0.001, **kept, **ends}
    said = {"attack": "ordinary", "outcome": "fails", "conclusion": "nothing is kept"}
    page = written(report, constraint=pd.DataFrame([row | said]))
    assert "1.50 (1.50 to 1.50)" in page and "nothing is kept" in page
    assert "Can safety be ensured by constraining a region? Not by any that was tested" in page


def test_values_stand_under_their_headers():
    """The conclusion stood under the name of a number once."""
    kept = {"kept": 1.5, "kept_low": 1.25, "kept_high": 2, "beyond": 0.5, "beyond_low": 0, "beyond_high": 1}
    run = {"plan": "ordinary", "arm": "freeze", "learning_rate": 0.001, "conclusion": "nothing is kept"}
    constraint = index._constraint(pd.DataFrame([effect() | kept | run]))
    row = dict(zip(constraint.header, constraint.rows[0], strict=True))
    assert (
        row | {"rate": "0.001", "conclusion": "nothing is kept", "plan": "ordinary", "arm": "freeze"} == row
    )
    assert row[index.KEPT["kept"]] == "1.50 (1.25 to 2.00)"
    assert row[index.KEPT["beyond"]] == "0.50 (0.00 to 1.00)"
    assert set(constraint.numbers) <= set(constraint.header)
    effects = index._effects(pd.DataFrame([effect()]))
    row = dict(zip(effects.header, effects.rows[0], strict=True))
    assert row["conclusion"] == effect()["conclusion"] and row["effect (95 %)"].startswith("-3.25 (")
    assert row["method"] == effect()["method"] and row["operation"] == "base 1"


def test_figures_are_inside_the_page_or_linked(report, page):
    packed = [image["data-packed"] for image in Elements(page).of("img") if "data-packed" in image]
    assert len(packed) == 1 + 2 * 4 + 1 and set(packed) == {pack(SVG.encode())}
    assert {gzip.decompress(b64decode(one)) for one in packed} == {SVG.encode()}
    figures = read_figures(report.inputs["parts"], report.page.parent)
    assert {figure.name for figure in figures} == {"iou", "map", "kway", "transfer", "ladder", "refusals"}
    assert all((figure.packed is None) == (figure.name not in INSIDE) for figure in figures)
    links = links_of(page)
    for figure in figures:
        assert figure.svg in links and figure.tsv in links
    assert all(svg in page for svg in read_ladders(report.page.parent, report.backbones).values())


def test_every_figure_of_the_report_has_a_title():
    rules = "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("report*.smk"))
    assert set(re.findall(r"(\w+)\.svg", rules)) == TITLES.keys()


def test_links_lead_to_files_of_the_report(report, page):
    dead = [link for link in links_of(page) if not (report.page.parent / link).exists()]
    assert dead == ["../overlap/iou.parquet"], "which only a whole study has"
    assert not any("BACKBONE" in link for link in links_of(page))


def test_the_page_needs_nothing_from_elsewhere(page):
    elements = Elements(page)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page)
    assert not elements.of("link") and "@import" not in page and "url(" not in page
    assert all(
        "src" not in attributes for tag, attributes in elements.found if tag in ("img", "script", "iframe")
    )


def test_anchors_and_descriptions_lead_somewhere_and_ids_are_unique(page):
    elements = Elements(page)
    ids = Counter(attributes["id"] for _, attributes in elements.found if "id" in attributes)
    assert max(ids.values()) == 1
    asked = {a["href"][1:] for a in elements.of("a") if a["href"].startswith("#")}
    asked |= {a["aria-labelledby"] for _, a in elements.found if "aria-labelledby" in a}
    assert asked <= ids.keys()


def test_a_screen_reader_finds_headers_names_and_alternatives(page):
    elements = Elements(page)
    assert all(heading["scope"] in ("col", "row") for heading in elements.of("th"))
    assert all(image["alt"] for image in elements.of("img") if "data-packed" in image)
    assert all(svg["aria-label"] for svg in elements.of("svg") if svg.get("role") == "img")
    assert len(elements.of("main")) == len(elements.of("h1")) == 1
    assert all(part["aria-label"] for _, part in elements.found if part.get("role") == "region")
    assert elements.of("html")[0]["lang"] == "en"
    levels = [int(tag[1]) for tag, _ in elements.found if re.fullmatch("h[1-6]", tag)]
    assert all(after - before <= 1 for before, after in pairwise(levels))


def luminance(colour: str) -> float:
    """The relative luminance of a colour #rrggbb (WCAG 2)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_text_has_contrast_in_light_and_dark():
    css = (TEMPLATES / "style.css.j2").read_text()
    blocks = [
        dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block))
        for block in re.findall(r":root {(.*?)}", css, re.DOTALL)
    ]
    light, dark = blocks[0], blocks[0] | blocks[1]
    assert light["paper"] != dark["paper"]
    for look in (light, dark):
        for ground in ("paper", "card"):
            assert all(contrast(look[ink], look[ground]) >= 4.5 for ink in ("ink", "soft", "link"))
            assert contrast(look["focus"], look[ground]) >= 3


def test_names_are_escaped(report):
    bad = "<script>alert(1)</script>"
    verdicts = report.tables.verdicts.assign(method=bad, verdict=bad)
    page = written(report, verdicts=verdicts, effects=pd.DataFrame([effect() | {"conclusion": bad}]))
    assert bad not in page and page.count("<script>") == 1


def test_only_the_first_backbones_are_open(tmp_path):
    report = SyntheticReport(tmp_path / "results", verdicts=copied("abc", ["snip"]))
    shelves = [part for part in Elements(written(report)).of("details") if part.get("class") == "shelf"]
    assert ["open" in part for part in shelves] == [True] * OPEN + [False]


def test_sets_are_shown_with_what_the_tables_say(report, page):
    tables = report.tables
    table = studied.sets_table(tables.refusals, tables.shared)
    assert len(table.rows) == 2 * 4
    found = dict(zip(table.header, table.rows[0], strict=True))
    splits = tables.refusals[
        (tables.refusals["backbone"] == "llama") & (tables.refusals["dataset"] == NAMES[0])
    ]
    rates = splits.set_index("split")
    assert found["set"] == NAMES[0] and found["prompts used"] == "30"
    for split, name in (("identify", "refused, %"), ("evaluate", "held out, refused, %")):
        one = rates.loc[split]
        rate, low, high = (f"{100 * one[column]:.0f}" for column in ("refusal_rate", "low", "high"))
        assert found[name] == f"{rate} ({low}-{high}) of {one['n']}"
    assert found["distinct responses"] == "1 of 40"
    assert found["shared prompts, %"] == f"3.0 ({NAMES[1]})"
    assert dict(zip(table.header, table.rows[2], strict=True))["shared prompts, %"] == "0.0"
    assert "1 of 40" in page


def test_the_most_shared_prompts_of_a_set_are_shown():
    counts = shared_counts(synthetic.shared({NAMES[:2]: (0, 3), NAMES[1:]: (0, 30)}, NAMES))
    refusals = pd.DataFrame(
        [
            {"backbone": "llama", "role": "identification", "dataset": name, "split": "identify", "n": 4,
             "n_unfinished": 1, "n_distinct": 2, "refusal_rate": 0.5, "low": 0.2, "high": 0.8,
             "used_a": used, "used_b": 4}
            for name, used in zip(NAMES, (2, 4, float("nan")), strict=True)
        ]
    )  # fmt: skip
    table = studied.sets_table(refusals, counts)
    rows = [dict(zip(table.header, row, strict=True)) for row in table.rows]
    assert [row["shared prompts, %"] for row in rows] == [
        f"3.0 ({NAMES[1]})", f"30.0 ({NAMES[2]})", f"25.0 ({NAMES[1]})",
    ]  # fmt: skip
    assert [row["prompts used"] for row in rows] == ["2-4", "4", "4"]
    assert rows[0]["held out, refused, %"] == "–" and rows[0]["distinct responses"] == "2 of 5"


def test_backbones_are_shown_as_they_were_loaded(page):
    for text in ("nobody/tiny", "0123abc", "float32", "native; enable_thinking False", "2024-07-26"):
        assert text in page
    assert "&lt;|user|&gt;{prompt}&lt;|end|&gt;" in page
    table = studied.backbones_table(
        {"a": METADATA | {"revision": None}}, {"a": {"kind": "organism", "base": "b"}}
    )
    found = dict(zip(table.header, table.rows[0], strict=True))
    assert found["commit"] == "–" and found["kind"] == "organism; before alignment: b"


@pytest.mark.slow
def test_backbones_have_the_metadata_that_the_page_shows():
    from tests.tiny import tiny_backbone

    assert METADATA.keys() <= tiny_backbone("llama").metadata.keys()


def test_times_are_sums_over_the_benchmark_files_of_the_backbones(tmp_path):
    assert studied.times_table(tmp_path / "none", {"a": 0}) is None
    for path, seconds in {
        "score/a/snip/x": 3600,
        "score/a/snip/y": 61,
        "train/a": 5,
        "score/b/snip/x": 9,
    }.items():
        file = tmp_path / f"{path}.tsv"
        file.parent.mkdir(parents=True, exist_ok=True)
        memory = "-" if path.startswith("train") else f"{2048 + seconds}"
        file.write_text(f"s\th:m:s\tmax_rss\tcpu_time\n{seconds}.2\t-\t{memory}\t{seconds / 2}\n")
    table = studied.times_table(tmp_path, {"a": 2})
    assert table.rows == [
        ["score", "2", "1:01:01", "1:00:00", "0:30:30", "2:02:03", "5.5"],
        ["train", "1", "0:00:05", "0:00:05", "0:00:02", "0:00:10", "–"],
        ["all", "3", "1:01:07", "1:00:00", "0:30:33", "2:02:13", "5.5"],
    ]
    assert studied.times_table(tmp_path, {"c": 1}) is None


def test_versions_are_those_of_the_packages_and_torch_is_not_imported():
    found = studied.versions()
    assert found["pandas"] == pd.__version__ and {"safety-regions", "Python", "torch"} <= found.keys()


def test_a_table_is_read_back_as_it_was_written(tmp_path):
    verdicts = verdicts_of()
    save_tsv(tmp_path / "verdict.tsv", verdicts)
    pd.testing.assert_frame_equal(
        read_tsv(tmp_path / "verdict.tsv"), verdicts, check_dtype=False, check_exact=True
    )
    save_tsv(tmp_path / "empty.tsv", pd.DataFrame([]))
    assert read_tsv(tmp_path / "empty.tsv").empty
    save_tsv(tmp_path / "effects.tsv", pd.DataFrame([effect(more="random regions")]))
    assert read_tsv(tmp_path / "effects.tsv").iloc[0]["not_more"] == "", "empty, not undefined"


@pytest.mark.slow
def test_the_page_of_the_papers_grid_stays_small(tmp_path):
    """Twelve backbones, eight methods with one selection each: as many figures as the paper's grid has, of ten sets."""
    from safety_regions.report.combinations import model_rows, pairs
    from safety_regions.report.figures.matrices import draw_matrices, tree_of
    from tests.report.shown import svg

    tables = [
        (refinement, synthetic.overlap(synthetic.regions(10, 1, refinement, units=60), ks=(2,)))
        for refinement in synthetic.REFINEMENTS
    ]
    names = sorted(synthetic.NAMES[:10])
    table = pairs(model_rows(tables, names), names)
    figure = svg(
        tmp_path / "iou.svg", draw_matrices(table, "backbone / method / row-0.05", tree_of(table))
    ).decode()
    backbones, methods = ([f"{kind}-{i}" for i in range(n)] for kind, n in (("backbone", 12), ("method", 8)))
    report = SyntheticReport(tmp_path / "results", svg=figure, verdicts=copied(backbones, methods))
    page = written(report)
    print(f"{len(page) / 1e6:.1f} MB, of figures of {len(figure) / 1e3:.0f} kB")
    assert len(page.encode()) < MOST < 2 * 12 * 8 * len(figure) / 5
