"""The ladder of a backbone must show the numbers of its cells, at the places of the axis."""

import re
from xml.etree import ElementTree

import pandas as pd
import pytest

from safety_regions.report.figures.style import COLOURS
from safety_regions.report.pages.ladders import ROLES, draw_ladders, ladder_rows, place
from tests.report.synthetic_report import verdicts_of

SVG = "{http://www.w3.org/2000/svg}"
METHODS = ["snip", "wanda", "random"]


@pytest.fixture(scope="module")
def verdicts():
    return verdicts_of()


def drawn(rows: pd.DataFrame, **how) -> ElementTree.Element:
    return ElementTree.fromstring(draw_ladders(rows, "llama", METHODS, **how))


def strips(root: ElementTree.Element) -> dict[str, ElementTree.Element]:
    """Cell and its values in words -> its strip."""
    return {
        strip.find(f"{SVG}title").text: strip
        for strip in root.iter(f"{SVG}g")
        if strip.get("class") == "strip"
    }


def percent(element: ElementTree.Element, name: str) -> float:
    return float(element.get(name).removesuffix("%"))


def test_the_axis_runs_from_0_to_1():
    assert place(0) + place(1) == 100 and place(0.5) == 50 and place(0) > 0


def test_every_number_is_at_its_place(verdicts):
    rows = ladder_rows(verdicts, "llama")
    found = strips(drawn(rows))
    assert len(found) == len(rows) == 4
    for (words, strip), row in zip(found.items(), rows.to_dict("records"), strict=True):
        name = f"{row['method']} / {row['selection']} / {row['refinement']}"
        assert words.startswith(
            f"{name}: IoU {row['iou']:.3f} ± {row['iou_se']:.3f}, chance {row['chance']:.3f}"
        )
        marks = {
            next(iter(mark)).tag.removeprefix(SVG) + mark[0].get("fill")[:1]: percent(mark, "x")
            for mark in strip.iter(f"{SVG}svg")
        }
        assert marks == {
            "circle#": place(row["iou"]),
            "circlen": place(max(0, row["half_iou"])),
            "rectn": place(row["mixed_iou"]),
            "pathn": place(row["ceiling"]),
        }
        lines = list(strip.iter(f"{SVG}line"))
        upright = [percent(line, "x1") for line in lines if line.get("y1") != line.get("y2")]
        assert upright == [place(row["floor"]), place(row["chance"])]
        lying = {(percent(line, "x1"), percent(line, "x2")) for line in lines}
        assert (place(row["iou_min"]), place(row["iou_max"])) in lying
        assert (place(max(0, row["iou"] - row["iou_se"])), place(row["iou"] + row["iou_se"])) in lying
        [band] = [box for box in strip.iter(f"{SVG}rect") if box.get("fill-opacity")]
        assert percent(band, "x") == place(row["floor_low"])
        assert percent(band, "x") + percent(band, "width") == pytest.approx(
            place(row["floor_high"]), abs=0.02
        )


def test_what_a_study_does_not_have_is_neither_drawn_nor_explained():
    rows = ladder_rows(verdicts_of(with_frames=False), "llama")
    text = draw_ladders(rows, "llama", METHODS)
    assert [label for label in ROLES.values() if label in text] == [
        ROLES[n] for n in ("iou", "iou_min", "chance")
    ]
    assert "floor" not in text and "nan" not in text
    full = draw_ladders(ladder_rows(verdicts_of(), "llama"), "llama", METHODS)
    assert all(label in full for label in ROLES.values())


def test_a_cell_without_an_iou_says_so(verdicts):
    rows = ladder_rows(verdicts, "llama").iloc[:1]
    empty = rows.assign(
        **dict.fromkeys(("iou", "iou_se", "iou_min", "iou_max", "half_iou", "mixed_iou"), float("nan"))
    )
    [(words, strip)] = strips(drawn(empty)).items()
    assert "no IoU" in words and not list(strip.iter(f"{SVG}circle"))


def test_a_method_has_one_colour_for_all_backbones(verdicts):
    for backbone in ("llama", "gemma"):
        root = ElementTree.fromstring(draw_ladders(ladder_rows(verdicts, backbone), backbone, METHODS))
        for words, strip in strips(root).items():
            colours = {mark.get("fill") for mark in strip.iter(f"{SVG}circle")} - {"none"}
            assert colours == {COLOURS[METHODS.index(words.split(" / ")[0])]}


def test_colours_are_those_of_the_other_figures():
    text = draw_ladders(ladder_rows(verdicts_of(), "llama"), "llama", METHODS)
    assert set(re.findall(r"#[0-9A-F]{6}\b", text)) - {"#767676"} <= set(COLOURS)


def test_baselines_are_called_so(verdicts):
    rows = ladder_rows(verdicts, "llama")
    assert "data-free baseline" not in draw_ladders(rows, "llama", METHODS)
    text = draw_ladders(rows, "llama", METHODS, data_free=["snip"])
    assert text.count("data-free baseline") == 1


def test_nothing_lies_outside_the_figure(verdicts):
    root = drawn(ladder_rows(verdicts, "llama"))
    height = float(root.get("height"))
    for element in root.iter():
        for name in ("y", "y1", "y2", "cy"):
            assert float(element.get(name, 0)) <= height
        for name in ("x", "x1", "x2"):
            text = element.get(name, "0")
            assert not text.endswith("%") or 0 <= float(text[:-1]) <= 100


def test_the_same_table_gives_the_same_bytes_and_names_are_escaped(verdicts):
    rows = ladder_rows(verdicts, "llama")
    assert draw_ladders(rows, "llama", METHODS) == draw_ladders(rows, "llama", METHODS)
    bad = rows.assign(selection="<script>")
    assert "<script>" not in draw_ladders(bad, "<script>", METHODS)
