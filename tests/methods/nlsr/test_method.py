"""NLSR against its literal definition: explicit outputs, full singular value decompositions, merged weights."""

import pytest
import torch

from safety_regions.errors import StudyError
from safety_regions.methods.nlsr import method as nlsr
from safety_regions.model.batches import Sample
from safety_regions.model.lora import amplification, read_adapter
from safety_regions.scoring.samples import Samples
from safety_regions.study.catalog import with_defaults
from safety_regions.study.method_shelf import method_cards
from safety_regions.units.addresses import PROJECTIONS, sort_addresses
from tests.methods.test_weights import assert_close, samples_of
from tests.oracles import lora as oracle
from tests.tiny import FAMILIES, tiny_backbone
from tests.training.adapters import write_adapter

RANK = 5
OPTIONS = with_defaults({"retained": 0.4}, {"properties": nlsr.CARD["options"]})  # 2 of 5 directions


@pytest.fixture(params=FAMILIES)
def case(request, tmp_path):
    """A backbone of each family, with a random adapter of rank 5."""
    backbone = tiny_backbone(request.param)
    return backbone, write_adapter(backbone, tmp_path / "adapter", RANK)


@pytest.fixture
def llama(tmp_path):
    backbone = tiny_backbone("llama3")
    return backbone, write_adapter(backbone, tmp_path / "adapter", RANK)


def run(case, options=OPTIONS, samples=None, batch_size=3, seed=None, contrast=()) -> dict[str, torch.Tensor]:
    backbone, directory = case
    given = Samples(samples or samples_of(6), contrast, directory, batch_size)
    evidence = nlsr.gather(backbone, given, options)
    if seed is not None:
        evidence = nlsr.shuffle(evidence, seed)
    return dict(nlsr.scores(backbone, evidence, options))


def literal(case, k=2, factor=1.9, samples=None, **other) -> dict[str, torch.Tensor]:
    found = oracle.nlsr(*case, samples or samples_of(6), k, factor, **other)
    return {where: found[where] for where in sort_addresses(found)}


def assert_same_top(found: dict, expected: dict, fraction: float = 0.2) -> None:
    """The best fraction of each matrix is the same, but where rounding could decide it."""
    for where, scores in expected.items():
        threshold = scores.flatten().sort(descending=True).values[int(fraction * scores.numel()) - 1]
        sure = (scores - threshold).abs() > 2e-5 * scores.max()
        assert sure.float().mean() > 0.95, where
        mine = found[where].double()
        mask = mine >= mine.flatten().sort(descending=True).values[int(fraction * mine.numel()) - 1]
        assert torch.equal(mask[sure], (scores >= threshold)[sure]), where


def test_scores_are_those_of_explicit_singular_value_decompositions(case):
    found, expected = run(case), literal(case)
    assert_close(found, expected)
    assert_same_top(found, expected)


def test_all_directions_are_no_projection(case):
    """P = I where nothing is discarded: the scores are plain magnitudes, and so are their ranks."""
    found = run(case, OPTIONS | {"retained": 1.0})
    adapter = read_adapter(*case)
    plain = {lora.address: lora.a.abs() for lora in adapter}
    plain |= {where: part.abs() for lora in adapter for where, part in lora.parts()}
    for where, scores in found.items():
        torch.testing.assert_close(scores, plain[where], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("form,factor", [("none", 1.0), ("product", 1.5), ("factors", 1.0)])
def test_the_amplified_adapter_is_in_the_forward_pass(llama, form, factor):
    options = OPTIONS | {"amplify": form, "beta": 0.5}
    assert_close(run(llama, options), literal(llama, factor=factor))


def test_amplification_matters(llama):
    plain, amplified = run(llama, OPTIONS | {"amplify": "none"}), run(llama)
    assert any(not torch.allclose(plain[where], amplified[where], rtol=1e-3) for where in plain)


def test_contrast_directions_are_projected_out(llama):
    """(I - P') P W; with the contrast samples for identification too, nothing is left."""
    other = samples_of(5, seed=8)
    options = OPTIONS | {"contrast": "everyday"}
    found = run(llama, options, contrast=other)
    assert_close(found, literal(llama, other=other, p=2))
    nothing, plain = run(llama, options, contrast=samples_of(6)), run(llama)
    assert all(scores.max() < 1e-6 * plain[where].max() for where, scores in nothing.items())


def test_the_contrast_set_is_scored_without_contrast(llama):
    """Its region is what the refinement ``minus-everyday`` subtracts; less its own directions nothing is left."""
    own = [sample._replace(prompt_id=f"everyday/{sample.prompt_id}") for sample in samples_of(6)]
    found = run(llama, OPTIONS | {"contrast": "everyday"}, own, contrast=samples_of(5, seed=8))
    assert all(torch.equal(found[where], scores) for where, scores in run(llama, samples=own).items())


def test_without_the_option_contrast_samples_change_nothing(llama):
    plain, given = run(llama), run(llama, contrast=samples_of(5, seed=8))
    assert all(torch.equal(plain[where], given[where]) for where in plain)


def test_sequential_layers_see_earlier_ones_projected(llama):
    """Literally: project the factors of a block, write them, and look at the next block anew."""
    backbone, directory = llama
    found = run(llama, OPTIONS | {"sequential": True})
    a, b, scale = oracle.factors(directory)
    current = {name: (a[name], b[name]) for name in a}
    expected = {}
    for layer in range(backbone.config.num_hidden_layers):
        model = oracle.merged(backbone, directory, 0.0)
        for name, (left, right) in current.items():
            model.get_submodule(name).weight += 1.9 * scale * right @ left
        x = oracle.inputs_at_responses(model, list(a), samples_of(6))
        for p in PROJECTIONS:
            name = oracle.module_name(model, layer, p)
            z = x[name] @ a[name].T
            current[name] = (
                oracle.projection(x[name], a[name], 2) @ a[name],
                oracle.projection(z, b[name], 2) @ b[name],
            )
            expected[f"layers.{layer}.{p}.A"], expected[f"layers.{layer}.{p}.B"] = (
                m.abs() for m in current[name]
            )
    assert_close(found, expected)
    first = [where for where in found if where.startswith("layers.0.")]
    dense = run(llama)
    assert all(torch.equal(found[where], dense[where]) for where in first)
    assert not torch.allclose(found["layers.2.q.A"], dense["layers.2.q.A"], rtol=1e-3)


def test_directions_without_output_are_not_retained(llama):
    """One response of two tokens: at most two directions, however many the option asks for."""
    samples = [Sample("a/1", list(range(9)), 7)]
    found = run(llama, OPTIONS | {"retained": 0.8}, samples=samples)
    assert_close(found, literal(llama, k=2, samples=samples))


def test_a_shuffle_keeps_adapter_spectrum_and_seed(llama):
    backbone, directory = llama
    evidence = nlsr.gather(backbone, Samples(samples_of(6), (), directory), OPTIONS)
    once, twice, other = (nlsr.shuffle(evidence, seed) for seed in (1, 1, 2))
    for lora in evidence.adapter:
        left, s, _ = torch.linalg.svd(lora.a.double(), full_matrices=False)
        inverse = torch.diag(1 / s) @ left.T
        spectra = [
            torch.linalg.eigvalsh(inverse @ some.grams[lora.address] @ inverse.T) for some in (evidence, once)
        ]
        torch.testing.assert_close(*spectra, rtol=1e-6, atol=1e-9 * float(spectra[0][-1]))
        assert torch.equal(once.grams[lora.address], twice.grams[lora.address])
        assert not torch.allclose(once.grams[lora.address], other.grams[lora.address])
        assert not torch.allclose(once.grams[lora.address], evidence.grams[lora.address])
    assert once.adapter == evidence.adapter
    assert not torch.equal(run(llama, seed=1)["layers.0.q.A"], run(llama)["layers.0.q.A"])


def test_where_all_directions_count_a_shuffle_changes_nothing(llama):
    """The floor's meaning: evidence decides only through the directions it discards."""
    options = OPTIONS | {"retained": 1.0}
    assert_close(run(llama, options, seed=3), {w: s.double() for w, s in run(llama, options).items()}, 1e-5)


def test_a_backbone_in_bfloat16_gives_finite_scores(tmp_path):
    backbone = tiny_backbone("qwen2", dtype=torch.bfloat16)
    directory = write_adapter(backbone, tmp_path / "adapter", RANK)
    exact = run((tiny_backbone("qwen2"), directory))
    found = run((backbone, directory))
    assert all(torch.isfinite(scores).all() for scores in found.values())
    assert_close(found, {where: scores.double() for where, scores in exact.items()}, tolerance=0.5)


def test_what_is_missing_is_said(llama):
    backbone, directory = llama
    with pytest.raises(StudyError, match="`adapters`"):
        nlsr.gather(backbone, Samples(samples_of()), OPTIONS)
    with pytest.raises(StudyError, match="samples of 'everyday'"):
        nlsr.gather(backbone, Samples(samples_of(), (), directory), OPTIONS | {"contrast": "everyday"})
    with pytest.raises(StudyError, match="no direction"):
        run(llama, OPTIONS | {"retained": 0.1})


def test_the_presets_are_the_paper_and_the_released_code():
    """Of rank 128 the paper retains 25 directions and the code 102; the product grows 1.9 and 3.24 times."""
    card = method_cards()["nlsr"]
    for options, rank, factor in (({}, 25, 1.9), (card["presets"]["nlsr_code"]["options"], 102, 3.24)):
        chosen = with_defaults(options, {"properties": card["options"]})
        assert nlsr.retained_rank(128, chosen["retained"]) == rank
        assert amplification(chosen["amplify"], chosen["beta"]) == pytest.approx(factor)


def test_the_metadata_say_how_many_layers_the_adapter_covers(llama, tmp_path):
    backbone, _ = llama
    write_adapter(backbone, tmp_path, target_modules=["q_proj"])
    evidence = nlsr.gather(backbone, Samples(samples_of(), (), tmp_path), OPTIONS)
    assert nlsr.findings(backbone, evidence, OPTIONS) == {"adapted_layers": 3, "linear_layers": 21}
