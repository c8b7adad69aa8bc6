"""A study plans only the names that its config asks for, and every pair of names that it compares."""

from itertools import combinations

import pytest

from safety_regions.errors import StudyError
from safety_regions.study import comparisons, grid
from safety_regions.study.config import read_study
from safety_regions.units.names import parse_name

SETS = ["forgery", "fraud", "hacking", "weapons"]


def study(**keys):
    config = {
        "backbones": ["organism-llama"],
        "datasets": {"identification": SETS, "utility": ["everyday", "lookalikes"]},
        "methods": {"snip": {}, "wanda": {}, "safelayer": {"selections": ["range", "global-0.25"]}},
    }
    return read_study({**config, **keys})


def test_a_plain_study_plans_sets_alone():
    plain = study()
    assert comparisons.pool_steps(plain) == comparisons.block_pairs(plain, "snip", "row-0.05") == []
    assert grid.framed_names(plain, "snip", "row-0.05", "raw") == [*SETS, "everyday", "lookalikes"]
    assert grid.framed_names(plain, "snip", "row-0.05", "minus-everyday") == [*SETS, "lookalikes"]


def test_data_free_methods_have_no_floors_and_no_ceilings():
    asked = study(floors=2, ceilings=True, methods={"magnitude": {}, "random": {}})
    for label in asked.methods:
        assert grid.framed_names(asked, label, "row-0.05", "raw") == [*SETS, "everyday", "lookalikes"]
        assert grid.correlated_names(asked, label, "row-0.05", "raw") == []


def test_cores_have_sets_shuffles_and_regroupings():
    asked = study(floors=2, regroupings=3, methods={"snip": {}, "magnitude": {}, "safelayer": {}})
    groups = comparisons.core_groups(asked, "snip", "row-0.05")
    assert [(g.kind, g.draw) for g in groups] == [
        ("sets", 0), ("shuffled", 1), ("shuffled", 2), ("regrouped", 1), ("regrouped", 2), ("regrouped", 3),
    ]  # fmt: skip
    assert groups[1].names == [f"{name}~1r" for name in SETS] and groups[0].names == SETS
    assert [g.kind for g in comparisons.core_groups(asked, "magnitude", "row-0.05")] == ["sets"]
    layers = {g.kind for g in comparisons.core_groups(asked, "safelayer", "range")}
    assert layers == {"sets", "regrouped"}, "its floor needs no shuffles"
    assert comparisons.core_groups(study(floors=2), "snip", "row-0.05") == []
    assert len(comparisons.core_names(asked, "snip", "row-0.05")) == 6 * 4


@pytest.mark.parametrize("n", [2, 5, 6, 10])
def test_every_regrouping_holds_every_block_once_and_no_two_are_equal(n):
    sets, found = [f"s{i}" for i in range(n)], []
    for draw in range(1, n + 1):
        names = comparisons.regrouped(sets, draw, 7)
        parts = [parse_name(name).parts for name in names]
        assert all([part.dataset for part in group] == sets for group in parts)
        blocks = sorted((part.dataset, part.size, part.block) for group in parts for part in group)
        assert blocks == [(name, 7, block) for name in sets for block in range(1, n + 1)]
        found.append(frozenset(names))
    assert len(set(found)) == n


def test_names_of_groups_must_fit_file_names():
    cards = {f"s{i}-{'x' * 60}": {"extends": "fraud"} for i in range(4)}
    with pytest.raises(StudyError, match="regroupings: found names of 275 characters for the groups"):
        study(datasets={"identification": list(cards)}, cards={"datasets": cards}, regroupings=1)


def test_pools_and_blocks_of_data_free_methods_have_no_shuffles():
    asked = study(
        floors=2,
        pools={"orders": 1},
        sample_sizes={"sizes": [10], "blocks": 2},
        methods={"snip": {}, "magnitude": {}},
    )
    for label, shuffled in (("snip", True), ("magnitude", False)):
        assert bool(comparisons.shuffled_steps(asked, label, "row-0.05")) is shuffled
        kinds = {pair.pair for pair in comparisons.block_pairs(asked, label, "row-0.05")}
        assert kinds == {"sets", "blocks", *(["shuffled"] if shuffled else [])}


def test_floors_and_ceilings_are_planned_when_asked():
    asked = study(floors=2, ceilings=True)
    sets = [*SETS, "everyday", "lookalikes"]
    halves = ["", ".1", ".2"]

    def suffixes(label, selection):
        names = grid.framed_names(asked, label, selection, "raw")
        found = dict.fromkeys(name.removeprefix("forgery") for name in names if name.startswith("forgery"))
        assert names == [name + suffix for suffix in found for name in sets]
        return sorted(found)

    by_row = ["~1r", "~2r", ".1~1r", ".1~2r"]
    assert suffixes("snip", "row-0.05") == sorted([*halves, *by_row, "~1m", "~2m"])
    assert suffixes("wanda", "row-0.05") == sorted([*halves, *by_row]), (
        "one statistic per channel: no marginals"
    )
    assert suffixes("wanda", "matrix-0.05") == sorted([*halves, "~1", "~2", ".1~1", ".1~2"])
    both = study(floors=2, ceilings=True, methods={"wanda": {"selections": ["row-0.05", "matrix-0.05"]}})
    suffixes = {*by_row, "~1", "~2", ".1~1", ".1~2", ".1", ".2"}
    assert set(grid.scored_frame(both, "wanda", "fraud")) == {f"fraud{suffix}" for suffix in suffixes}
    assert grid.scored_frame(study(), "snip", "fraud") == []
    names = ["fraud", "fraud.1", "fraud~1", "fraud~1r", "fraud~1m", "fraud@5~1", "forgery+fraud", "hacking.2"]
    framed = {"fraud.1": "fraud", "fraud~1": "fraud", "fraud~1r": "fraud", "hacking.2": "hacking"}
    assert grid.scored_frames(both, "wanda", names) == framed


def test_scores_are_correlated_where_there_are_halves_of_units_smaller_than_layers():
    asked, cell = study(floors=2, ceilings=True), ("row-0.05", "minus-everyday")
    sets, suffixes = [*SETS, "lookalikes"], (".1~1r", ".1~2r", ".1", ".2")
    assert grid.correlated_names(asked, "snip", *cell) == [name + s for s in suffixes for name in sets]
    assert grid.uncorrelated_regions(asked, "snip", *cell) == ["everyday"]
    assert grid.uncorrelated_regions(asked, "snip", "row-0.05", "raw") == []
    for plain, label in ((asked, "safelayer"), (study(floors=2), "snip")):
        assert (
            grid.correlated_names(plain, label, *cell) == grid.uncorrelated_regions(plain, label, *cell) == []
        )


def test_subspaces_have_no_memberships_no_correlations_and_no_weights():
    """They have floors, ceilings and pairs like others, but are left out where methods are compared as weights."""
    asked = study(
        floors=2, ceilings=True, compare_methods=0.05, methods={"ranks": {"method": "actsvd"}, "snip": {}}
    )
    assert [grid.counted_as(asked, label) for label in ("ranks", "snip")] == ["subspaces", "membership"]
    assert grid.compared_methods(asked) == ["snip"] and grid.compared_methods(study()) == []
    assert {row["method"] for row in grid.recovered_regions(asked)} == {"ranks", "snip"}
    assert {row["method"] for row in grid.sampled_scores(asked)} == {"snip"}
    assert (grid.recovered_ranks(asked), grid.recovered_ranks(study())) == (0.05, None)
    framed = grid.framed_names(asked, "ranks", "matrix-0.05", "raw")
    assert {"fraud~1", "fraud.1~2", "fraud.1", "fraud.2", "everyday"} < set(framed)
    assert grid.framing(asked, "ranks", "matrix-0.05", "raw")["kind"] == ""
    assert grid.correlated_names(asked, "ranks", "matrix-0.05", "raw") == []
    assert grid.uncorrelated_regions(asked, "ranks", "matrix-0.05", "minus-everyday") == []


def test_regions_may_be_refined_by_those_of_another_method_and_fraction():
    minus = {"method": "wanda", "selection": "matrix-0.01"}
    asked = study(
        methods={
            "snip": {"minus": minus},
            "wanda": {"minus": {"selection": "row-0.02"}},
            "plain": {"method": "snip"},
        }
    )
    assert grid.removed_by(asked, "snip", "row-0.05") == ("wanda", "matrix-0.01")
    assert grid.removed_by(asked, "wanda", "row-0.05") == ("wanda", "row-0.02")
    assert grid.removed_by(asked, "plain", "row-0.05") == ("plain", "row-0.05")


def test_a_set_that_a_subtracted_method_contrasts_with_is_not_subtracted():
    layers = {"method": "safelayer", "selections": ["range"]}
    ranked = layers | {"minus": {"selection": "global-0.25"}}
    found = {
        label: {cell.refinement for cell in grid.cells(study(methods={label: given}))}
        for label, given in (("own", layers), ("ranked", ranked))
    }
    assert found["own"] - found["ranked"] == {"minus-everyday"}


def test_a_shuffle_is_cut_to_the_size_of_its_own_name():
    asked = study(methods={"snip": {}, "safeneuron": {}, "effectsize": {}})
    assert grid.unshuffled(asked, "snip", "row-0.05", "a.1+b~7r") == ["a.1+b"]
    assert grid.unshuffled(asked, "effectsize", "score-1", "a~7") == ["a"]
    assert grid.unshuffled(asked, "effectsize", "score-1", "a.1") == []
    assert grid.unshuffled(asked, "safeneuron", "common-0.2", "a~7") == []
    assert grid.unshuffled(asked, "snip", "row-0.05", "a.1") == []


def test_layers_need_no_shuffle_and_no_set_they_contrast_with():
    asked = study(floors=2, ceilings=True)
    sets = [*SETS, "lookalikes"]
    assert grid.framed_names(asked, "safelayer", "range", "raw") == [
        n + s for s in ("", ".1", ".2") for n in sets
    ]
    refined = {(c.selection, c.refinement) for c in grid.cells(asked) if c.method == "safelayer"}
    # For the set that layers are contrasted with, all ranks are tied, and the range is empty: it removes nothing.
    every = {(s, r) for s in ("range", "global-0.25") for r in ("raw", "minus-everyday", "minus-lookalikes")}
    assert refined == every - {("global-0.25", "minus-everyday")}


@pytest.mark.parametrize("prompts", ["grow", "equal"])
def test_pools_grow_by_one_set_and_their_rest_is_disjoint(prompts):
    steps = comparisons.pool_steps(study(pools={"orders": 3, "prompts": prompts}))
    assert len({step.a for step in steps if step.k == 1}) > 1 and len(steps) == 3 * 3 * 3
    for order in (1, 2, 3):
        of = {(s.k, s.against): s for s in steps if s.order == order}
        for k in (1, 2, 3):
            pooled, following, rest = (
                set(parse_name(n).datasets) for n in (of[k, "next"].a, of[k, "next"].b, of[k, "rest"].b)
            )
            assert len(pooled) == k and len(following - pooled) == 1 and pooled <= following
            assert pooled | rest == set(SETS) and not pooled & rest
            assert set(parse_name(of[k, "all"].b).datasets) == set(SETS)
            sizes = {part.size for part in parse_name(of[k, "next"].a).parts}
            assert sizes == {100 // k if prompts == "equal" and k > 1 else None}


@pytest.mark.parametrize("prompts", ["grow", "equal"])
def test_each_step_is_also_taken_with_shuffled_sets(prompts):
    pools = {"orders": 2, "prompts": prompts}
    asked = study(floors=2, pools=pools)
    for label, selection, kind in (("snip", "row-0.05", "r"), ("wanda", "matrix-0.05", "")):
        shuffled = comparisons.shuffled_steps(asked, label, selection)
        for step, names in zip(comparisons.pool_steps(asked), shuffled, strict=True):
            for plain, name in zip((step.a, step.b), names, strict=True):
                assert name == "+".join(f"{part}~1{kind}" for part in plain.split("+"))
                assert parse_name(name).parts == parse_name(plain).parts
        plain = comparisons.paired_names(comparisons.pool_steps(asked))
        names = comparisons.pool_names(asked, label, selection)
        assert names[: len(plain)] == plain and len(set(names)) == len(names) == 2 * len(plain)
    for other, label in ((study(pools=pools), "snip"), (asked, "safelayer")):
        assert comparisons.shuffled_steps(other, label, "row-0.05") == []
        assert comparisons.pool_names(other, label, "row-0.05") == comparisons.paired_names(
            comparisons.pool_steps(other)
        )


def test_only_selections_over_all_prompts_are_nested():
    asked = study(
        methods={"safeneuron": {"selections": ["common-0.2-0.9", "above-1", "matrix-0.05"]}, "snip": {}}
    )
    nested = {
        s: comparisons.is_nested(asked, "safeneuron", s) for s in asked.methods["safeneuron"].selections
    }
    assert nested == {"common-0.2-0.9": True, "above-1": True, "matrix-0.05": False}
    assert not comparisons.is_nested(asked, "snip", "row-0.05")


def test_a_set_drops_prompts_of_earlier_sets_alone():
    """So a set that comes later in the alphabet changes the prompts of no other."""
    few, more = (
        study(),
        study(datasets={"identification": [*SETS, "stalking"], "utility": ["everyday", "lookalikes"]}),
    )
    assert grid.up_to(few, "everyday") == ["everyday"] and grid.up_to(few, "fraud") == [
        "everyday",
        "forgery",
        "fraud",
    ]
    assert grid.up_to(more, "stalking") == sorted([*SETS[:3], "everyday", "lookalikes", "stalking"])
    for name in ("everyday", *SETS[:3], "lookalikes"):
        assert grid.up_to(few, name) == grid.up_to(more, name)


def test_every_order_at_once():
    steps = comparisons.pool_steps(study(pools={"orders": 24}))
    assert len({tuple(s.b for s in steps if (s.order, s.against) == (o, "next")) for o in range(1, 25)}) > 1
    assert {step.order for step in steps} == set(range(1, 25))


def test_every_set_is_crossed_with_every_other():
    pairs = comparisons.crossed_pairs(study(crossed=True))
    assert len(pairs) == 2 * len(SETS) * (len(SETS) - 1) and comparisons.crossed_pairs(study()) == []
    for pair in pairs:
        a, b = parse_name(pair.a).parts[0], parse_name(pair.b).parts[0]
        given = b.responses
        same = b.dataset if pair.same == "prompts" else given
        assert a.responses is None and a.dataset == same and given != b.dataset


def test_labels_are_permuted_where_units_go_by_rank():
    """Not for a method's own selection, nor for scores that depend on no prompt."""
    methods = {"snip": {}, "safeneuron": {"selections": ["matrix-0.1", "common-0.2"]}, "magnitude": {}}
    asked = study(methods=methods, label_permutations=19)
    ranked = {cell["selection"] for cell in comparisons.permuted_cells(asked, "safeneuron")}
    assert ranked == {"matrix-0.1"} and comparisons.permuted_pools(asked, "safeneuron", "common-0.2") == []
    pools = comparisons.permuted_pools(asked, "snip", "row-0.05")
    assert len(pools) == len(list(combinations(SETS, 2))) and pools[0].count("+") == 1
    assert comparisons.permuted_pools(asked, "magnitude", "row-0.05") == []
    assert comparisons.permuted_pools(study(methods=methods), "snip", "row-0.05") == []
    refined = comparisons.permuted_refinements(asked, "snip")
    assert {cell["refinement"] for cell in refined} == {f"minus-{cell['utility']}" for cell in refined}


def test_blocks_are_disjoint_and_end_with_the_whole_sample():
    asked = study(sample_sizes={"sizes": [100, 40, 10], "blocks": 3})
    pairs = comparisons.block_pairs(asked, "snip", "row-0.05")
    count = {10: 3, 40: 2, 100: 1}
    for n, blocks in count.items():
        of = [pair for pair in pairs if pair.n == n]
        assert len([p for p in of if p.pair == "sets"]) == blocks * 6
        assert len([p for p in of if p.pair == "blocks"]) == len(SETS) * len(
            list(combinations(range(blocks), 2))
        )
    assert {p.a for p in pairs if p.n == 100} | {p.b for p in pairs if p.n == 100} == set(SETS)
    blocks = [(parse_name(p.a).parts[0], parse_name(p.b).parts[0]) for p in pairs if p.pair == "blocks"]
    assert all(a.dataset == b.dataset and a.block != b.block and a.size == b.size for a, b in blocks)


@pytest.mark.parametrize(
    "keys,word",
    [
        ({"sample_sizes": {"sizes": [101]}}, "sample_sizes: sizes: found 101"),
        ({"pools": {"orders": 25}}, "pools: orders: found 25"),
        ({"pools": {"orders": -1}}, "pools: orders"),
        ({"regroupings": 5}, "regroupings: found 5; expected at most 4"),
        (
            {"regroupings": 1, "methods": {"actsvd": {}}},
            "regroupings: found the regions of 'actsvd', which are subspaces",
        ),
        (
            {"regroupings": 1, "samples": {"identify": 3}},
            "samples: identify: found 3 for 4 sets; expected a multiple of 4, so that a regrouped set has as many",
        ),
        (
            {"regroupings": 1, "samples": {"identify": 30}},
            "found 30 for 4 sets.* Try: 28, or no `regroupings`",
        ),
        ({"floors": -1}, "floors"),
        ({"ceilings": 3}, "ceilings"),
        ({"label_permutations": 18}, "label_permutations: found 18; expected 0, or at least 19"),
        ({"sample_sizes": {"sizes": [0]}}, "sample_sizes: sizes"),
    ],
)
def test_what_cannot_be_planned_is_refused(keys, word):
    with pytest.raises(StudyError, match=word):
        study(**keys)


def test_a_frame_holds_the_halves_and_shuffles_of_one_set():
    asked = study(floors=2, ceilings=True)
    dataset = SETS[0]
    names = grid.frame_names(asked, "snip", "row-0.05", dataset)
    assert names[:2] == [f"{dataset}.1", f"{dataset}.2"], "what is shuffled comes first"
    shuffles = ("~1m", "~1r", "~2m", "~2r", ".1~1r", ".1~2r")
    assert sorted(names[2:]) == sorted(dataset + suffix for suffix in shuffles)
    own = [dataset, f"{dataset}@4~1r", f"{dataset}~1r+{SETS[1]}~1r", f"{dataset}~1"]
    assert grid.frames_of(asked, "snip", "row-0.05", [*names, *own]) == dict.fromkeys(names, dataset)
