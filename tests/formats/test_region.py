"""A region must read back with the same units, and a damaged file must never be read as a region."""

import errno
import json
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from safety_regions.errors import StudyError
from safety_regions.formats import region_file
from safety_regions.formats.region import Region, read_region, write_region
from safety_regions.formats.region_file import BLOCK, RegionFile, iter_blocks
from safety_regions.units.addresses import LAYERS, MATRICES, address, parse_address, sort_addresses
from tests.regions.small_regions import METADATA, SHAPES, region_of, regions, same, units


@given(st.integers(0, 200), st.sampled_from(MATRICES))
def test_an_address_says_where_it_lies(layer, projection):
    assert parse_address(address(layer, projection)) == (layer, projection)
    assert parse_address(LAYERS) == (None, None)


NO_ADDRESSES = [
    "layers.1.z",
    "layers.x.q",
    "layers.01.q",
    "layer.1.q",
    "layers.1",
    "1.q",
    "",
    "layers.².q",
    "layers.1.q.C",
]


@pytest.mark.parametrize("text", NO_ADDRESSES)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(StudyError, match="unknown form"):
        parse_address(text)


def test_addresses_sort_by_layer_and_then_projection():
    expected = [address(layer, projection) for layer in range(12) for projection in MATRICES]
    assert sort_addresses(sorted(expected)) == expected


@given(regions())
def test_flags_are_what_was_packed(region):
    again = Region.pack({where: region.flags(where) for where in SHAPES}, region.metadata)
    assert same(again, region)
    assert region.n_selected == len(units(region)) == sum(region.selected_at.values())
    assert region.n_units == sum(region.available.values()) == 15 + 8 + 15 + 2 + 16


@settings(max_examples=30)
@given(region=regions(seed=3, options={"b": [1, None], "a": "x"}))
def test_a_region_survives_its_file(tmp_path_factory, region):
    path = tmp_path_factory.mktemp("r") / "deep" / "region.safetensors"
    write_region(path, region)
    assert same(read_region(path), region)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_the_same_region_is_the_same_bytes(tmp_path):
    region = region_of(np.random.default_rng(0))
    backwards = {where: region.masks[where] for where in reversed(SHAPES)}
    write_region(tmp_path / "a", region)
    write_region(tmp_path / "b", Region(backwards, region.shapes, region.metadata, region.available))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_any_safetensors_reader_opens_it(tmp_path):
    region = region_of(np.random.default_rng(0))
    write_region(tmp_path / "a", region)
    with safe_open(tmp_path / "a", framework="np") as file:
        assert set(file.keys()) == set(SHAPES)
        assert all(np.array_equal(file.get_tensor(where), region.masks[where]) for where in SHAPES)
        assert list(file.metadata()) == ["region"]
        assert json.loads(file.metadata()["region"])["n_selected"] == region.n_selected


def test_a_region_is_as_readable_as_any_new_file(tmp_path):
    write_region(tmp_path / "a", region_of(np.random.default_rng(0)))
    (tmp_path / "b").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    def full(*_):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(region_file, "save_file", full)
    with pytest.raises(StudyError, match=os.strerror(errno.ENOSPC)):
        write_region(tmp_path / "a", region_of(np.random.default_rng(0)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_flipped_bit_of_a_mask_is_detected_and_one_of_the_header_leaves_the_masks(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("r") / "a"
    region = region_of(np.random.default_rng(0), shapes={"layers.0.q": (3, 5), "layers.0.k": (1, 8)})
    write_region(path, region)
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    try:
        file = RegionFile(path)
        masks = {where: file.mask(where) for where in file.shapes}
    except StudyError as error:
        assert str(path) in str(error) and "delete the file and run snakemake again" in str(error)
    else:
        assert place < len(content) - 3, "the bit was in one of the last three bytes, which are the masks"
        assert all(np.array_equal(masks[where], region.masks[where]) for where in region.shapes)


@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b[:20], lambda b: b"", lambda b: b + b"0"])
def test_a_file_of_another_length_is_detected(tmp_path, change):
    write_region(tmp_path / "a", region_of(np.random.default_rng(0)))
    (tmp_path / "a").write_bytes(change((tmp_path / "a").read_bytes()))
    with pytest.raises(StudyError, match="delete the file and run snakemake again"):
        read_region(tmp_path / "a")


def test_a_damaged_file_of_a_frame_comes_back_with_its_folder(tmp_path):
    """One job writes the folder, so it does not run again for one missing file."""
    path = tmp_path / "raw.frame" / "a.1.safetensors"
    write_region(path, region_of(np.random.default_rng(0)))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StudyError, match=r"delete the folder raw\.frame and run snakemake again"):
        read_region(path)


def test_bits_that_change_places_are_detected(tmp_path):
    """Swapped bits must be detected even if the number of units stays the same."""
    write_region(tmp_path / "a", Region.pack({"layers.0.q": np.arange(16).reshape(2, 8) % 5 == 0}, METADATA))
    content = bytearray((tmp_path / "a").read_bytes())
    content[-2:] = content[:-3:-1]
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(StudyError, match="damaged bits"):
        read_region(tmp_path / "a")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(StudyError, match="nowhere"):
        read_region(tmp_path / "nowhere")


WRITTEN = {
    **METADATA, "version": 3, "shapes": {"layers.0.q": [3, 3]}, "available": {"layers.0.q": 9},
    "selected": {"layers.0.q": 2}, "n_units": 9, "n_selected": 2, "crc32": {"layers.0.q": 0x8A23C5B1},
}  # fmt: skip
BITS = np.array([0b11000000, 0], np.uint8)
WITHOUT_CHECKSUM = {key: value for key, value in WRITTEN.items() if key != "crc32"}
FORGED = {
    "length": (WRITTEN, BITS[:1]),
    "dtype": (WRITTEN, BITS.astype(np.int8)),
    "version": ({**WRITTEN, "version": 2}, BITS),
    "other address": ({**WRITTEN, "shapes": {"layers.0.k": [3, 3]}}, BITS),
    "available elsewhere": ({**WRITTEN, "available": {"layers.0.k": 9}}, BITS),
    "shape of no integers": ({**WRITTEN, "shapes": {"layers.0.q": [3.5, 3]}}, BITS),
    "no checksum": (WITHOUT_CHECKSUM, BITS),
    "no object": ([1, 2], BITS),
}


@pytest.mark.parametrize("name", FORGED)
def test_bits_that_contradict_their_metadata_are_detected(tmp_path, name):
    def write(metadata, bits):
        save_file({"layers.0.q": bits}, tmp_path / "a", {"region": json.dumps(metadata)})

    write(WRITTEN, BITS)
    assert read_region(tmp_path / "a").n_selected == 2
    write(*FORGED[name])
    with pytest.raises(StudyError, match="delete the file and run snakemake again"):
        read_region(tmp_path / "a")


@pytest.mark.parametrize("metadata", [None, {"schema": '"region"', "version": "2"}, {"region": "no JSON"}])
def test_another_safetensors_file_is_no_region(tmp_path, metadata):
    save_file({"layers.0.q": BITS}, tmp_path / "a", metadata)
    with pytest.raises(StudyError, match="expected a region file of version 3"):
        read_region(tmp_path / "a")


def test_a_region_that_cannot_be_is_refused():
    mask = np.zeros(2, np.uint8)
    for masks, shapes, available in (
        ({"layers.0.q": mask}, {"layers.0.q": (17,)}, {"layers.0.q": 17}),
        ({"layers.0.q": mask.astype(bool)}, {"layers.0.q": (16,)}, {"layers.0.q": 16}),
        ({"layers.0.q": mask + np.uint8(1)}, {"layers.0.q": (15,)}, {"layers.0.q": 15}),
        ({"layers.0.q": mask}, {"layers.0.q": (16,)}, {}),
    ):
        with pytest.raises(StudyError):
            Region(masks, shapes, METADATA, available)


@pytest.mark.parametrize("key", ["granularity", "scope", "fraction"])
def test_a_region_is_not_written_without_its_selection(tmp_path, key):
    region = region_of(np.random.default_rng(0))
    del region.metadata[key]
    with pytest.raises(StudyError, match=key):
        write_region(tmp_path / "a", region)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [1, 2, 3, BLOCK])
def test_blocks_put_together_are_the_masks(tmp_path, size):
    rng = np.random.default_rng(0)
    written = [region_of(rng) for _ in range(3)]
    for i, region in enumerate(written):
        write_region(tmp_path / str(i), region)
    blocks = list(iter_blocks([tmp_path / str(i) for i in range(3)], size))
    assert list(dict.fromkeys(block.address for block in blocks)) == list(SHAPES)
    for where in SHAPES:
        together = np.concatenate([block.bits for block in blocks if block.address == where], axis=1)
        assert np.array_equal(together, [region.masks[where] for region in written])
        assert max(block.bits.shape[1] for block in blocks) <= size


@pytest.mark.parametrize("size", [1, BLOCK])
def test_blocks_of_damaged_bits_end_in_an_error(tmp_path, size):
    write_region(tmp_path / "a", region_of(np.random.default_rng(0)))
    content = bytearray((tmp_path / "a").read_bytes())
    # A byte of layers.10.v; the last byte is layers.2.q.
    content[-2] ^= 0b11 if content[-2] % 4 in (1, 2) else 0b110
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(StudyError, match=r"layers\.10\.v: found damaged bits"):
        list(iter_blocks([tmp_path / "a"], size))


def test_regions_of_other_shapes_do_not_walk_together(tmp_path):
    write_region(tmp_path / "a", region_of(np.random.default_rng(0)))
    write_region(tmp_path / "b", region_of(np.random.default_rng(0), shapes={"layers.0.q": (2, 2)}))
    with pytest.raises(StudyError, match="different addresses or shapes"):
        list(iter_blocks([tmp_path / "a", tmp_path / "b"]))


def test_one_address_can_be_read_alone(tmp_path):
    region = region_of(np.random.default_rng(0))
    write_region(tmp_path / "a", region)
    file = RegionFile(tmp_path / "a")
    assert list(file.shapes) == list(SHAPES)
    assert np.array_equal(file.mask("layers.2.q"), region.masks["layers.2.q"])
