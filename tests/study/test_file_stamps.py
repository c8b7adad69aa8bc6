"""A stamp changes with the content of a file, not with its time or its folder."""

import os
import shutil

from safety_regions.study import file_stamps
from safety_regions.study.file_stamps import stamp


def write(path, text: str, time: int = 10**9):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    os.utime(path, (time, time))
    return path


def test_a_file_replaced_by_an_older_one_has_another_stamp(tmp_path):
    before = stamp([write(tmp_path / "a.csv", "new", 2 * 10**9)])
    assert stamp([write(tmp_path / "a.csv", "old")]) != before
    assert stamp([write(tmp_path / "a.csv", "new", 3 * 10**9)]) == before


def test_folder_and_order_do_not_matter_and_names_do(tmp_path):
    files = [write(tmp_path / "one" / name, name) for name in ("a", "b")]
    copy = shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert stamp(files) == stamp(files[::-1]) == stamp(copy / name for name in ("a", "b"))
    (copy / "a").rename(copy / "c")
    assert stamp([copy / "b", copy / "c"]) != stamp(files)
    assert stamp([]) == stamp([]) != stamp(files)


def test_large_files_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(file_stamps, "LARGE", 2)
    first = stamp([write(tmp_path / "a", "abc")])
    assert stamp([write(tmp_path / "a", "abd")]) == first
    assert stamp([write(tmp_path / "a", "abc", 2 * 10**9)]) != first != stamp([write(tmp_path / "a", "abcd")])
