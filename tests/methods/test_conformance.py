"""Every method must pass these tests on every family; a new method or preset is tested without further changes."""

import sys
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file

from safety_regions.formats.contracts import score_contract
from safety_regions.formats.parquet import conform
from safety_regions.methods import load_method
from safety_regions.model import batches as batching
from safety_regions.model.backbone import Backbone, attached
from safety_regions.model.batches import Batch, Sample
from safety_regions.scoring.method import Method
from safety_regions.scoring.run import Job, score
from safety_regions.scoring.samples import Chosen, Samples
from safety_regions.study.catalog import with_defaults
from safety_regions.study.method_shelf import granularity_of, method_cards
from safety_regions.units.addresses import PROJECTIONS, parse_address, sort_addresses
from safety_regions.units.granularity import GRANULARITIES, Granularity
from safety_regions.units.names import parse_name
from tests.tiny import FAMILIES, tiny_backbone
from tests.training.adapters import write_adapter

RANK = 5
LAYERS = 3
LENGTHS = ((7, 4), (3, 1), (15, 6), (9, 2), (4, 5))  # prompt, response tokens; some exceed the window of 7
NORMAL = ((5, 3), (12, 1), (3, 4))
FUSED = {"qkv_proj": ("q", "k", "v"), "gate_up_proj": ("gate", "up")}  # in Phi-3


class Case(NamedTuple):
    """A method with the options of a preset, or with its defaults."""

    method: str
    options: dict

    @property
    def module(self) -> Method:
        return load_method(self.method)

    @property
    def card(self) -> dict:
        return method_cards()[self.method]


def _cases() -> dict[str, Case]:
    """Return label -> case, without presets whose options equal those of another case."""
    found: dict[str, Case] = {}
    for method, card in method_cards().items():
        named = {method: {}} | {name: preset.get("options", {}) for name, preset in card["presets"].items()}
        for label, options in named.items():
            case = Case(method, with_defaults(options, {"properties": card["options"]}))
            if case not in found.values():
                found[label if label == method else f"{method} {label}"] = case
    return found


CASES = _cases()


def based_backbone(family: str, **changes) -> Backbone:
    """Return a tiny backbone with a base of other weights, for methods that compare the two."""
    return replace(tiny_backbone(family, **changes), base=tiny_backbone(family, seed=1, **changes))


# Shared by all tests; a separate test checks that methods do not change it.
backbone_of = cache(based_backbone)
every_method = pytest.mark.parametrize("label", CASES)
every_family = pytest.mark.parametrize("family", FAMILIES)


def samples_of(lengths=LENGTHS, name: str = "p", seed: int = 3) -> list[Sample]:
    """Return random samples with the given numbers of prompt and response tokens."""
    generator = torch.Generator().manual_seed(seed)
    ids = [torch.randint(0, 256, (sum(both),), generator=generator).tolist() for both in lengths]
    return [
        Sample(f"{name}{i}", tokens, both[0])
        for i, (tokens, both) in enumerate(zip(ids, lengths, strict=True))
    ]


@pytest.fixture(scope="module")
def adapter_of(tmp_path_factory):
    """Return a function: family -> directory of a random adapter of its tiny backbone, written once."""

    @cache
    def write(family: str) -> Path:
        return write_adapter(tiny_backbone(family), tmp_path_factory.mktemp(family), RANK)

    return write


def gather(label: str, backbone: Backbone, adapter: Path, samples=None, batch_size: int = 3):
    case = CASES[label]
    given = Samples(samples or samples_of(), samples_of(NORMAL, "n", 4), adapter, batch_size)
    return case.module.gather(backbone, given, case.options)


def read(label: str, backbone: Backbone, evidence) -> dict[str, torch.Tensor]:
    """Return scores by address, and every other column of the score table by "address column"."""
    module, options = CASES[label].module, CASES[label].options
    found = dict(module.scores(backbone, evidence, options))
    details = module.details
    columns = {a: details(backbone, evidence, options, a) for a in found}
    return found | {f"{a} {name}": values for a, some in columns.items() for name, values in some.items()}


def run(label: str, backbone: Backbone, adapter: Path, samples=None, batch_size: int = 3) -> dict:
    return read(label, backbone, gather(label, backbone, adapter, samples, batch_size))


def assert_same(found: dict, expected: dict) -> None:
    assert list(found) == list(expected)
    assert all(torch.equal(found[where], values) for where, values in expected.items())


def looks_at_samples(label: str) -> bool:
    """Return whether a method passes its samples through the backbone."""
    return not CASES[label].card["data_free"]


def assert_close(label: str, found: dict, expected: dict) -> None:
    """Check equality up to rounding: 2e-5 of the largest value, 1e-3 degrees, or one place in a ranking.

    Scores of heads can be divergences of nearly equal distributions, which are squares of small differences: rounding
    of 1e-6 in a logit moves them by 1e-6 of their root.
    """
    granularity = CASES[label].module.granularity
    assert list(found) == list(expected)
    if granularity.subspaces:
        found, expected = (grams(some) for some in (found, expected))
    for where, values in expected.items():
        error = (found[where].double() - values.double()).abs().max()
        places = f"{where.partition(' ')[0]} ranks" in expected and not where.endswith(" importances")
        place = 1.0 if where.endswith(" ranks") else 1 / len(values)
        largest = values.abs().max()
        allowed = 1e-3 if granularity.whole_layers else 2e-5 * largest
        if granularity.part:
            allowed += 1e-6 * largest.sqrt()
        assert error <= (1.01 * place if places else allowed), f"{where}: {error:.1e}"


def grams(columns: dict) -> dict[str, torch.Tensor]:
    """Return address -> U S^2 U^T of stored directions and singular values, which does not depend on signs."""
    squares = {where: values.double().square() for where, values in columns.items() if " " not in where}
    directions = {where: columns[f"{where} direction"].double() for where in squares}
    return {where: (u.T * squares[where]) @ u for where, u in directions.items()}


def expected_shapes(kind: Granularity, backbone: Backbone) -> dict[str, tuple[int, ...]]:
    """Return address -> shape in flat order, from the sizes in the config alone."""
    c = backbone.model.config
    head = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    q, kv, d, f = (
        c.num_attention_heads * head,
        c.num_key_value_heads * head,
        c.hidden_size,
        c.intermediate_size,
    )
    weights = {
        "q": (q, d), "k": (kv, d), "v": (kv, d), "o": (d, q), "gate": (f, d), "up": (f, d), "down": (d, f),
    }  # fmt: skip
    if kind.whole_layers:
        return {"layers": (c.num_hidden_layers,)}
    if kind.part:
        return {f"layers.{i}.{kind.part}": (c.num_attention_heads,) for i in range(c.num_hidden_layers)}
    units = {"q": (q,), "k": (kv,), "v": (kv,), "up": (f,), "down": (f,)}
    ranks = {p: (min(shape),) for p, shape in weights.items()}
    first = {parts[0] for parts in backbone.family.modules.values()}  # fused projections share one A
    a = {f"{p}.A": (RANK, shape[1]) for p, shape in weights.items() if p in first}
    factors = a | {f"{p}.B": (shape[0], RANK) for p, shape in weights.items()}
    single = ranks if kind.subspaces else units
    chosen = single if len(kind.axes) == 1 else factors if kind.factors else weights
    found = {
        f"layers.{i}.{p}": shape
        for i in range(c.num_hidden_layers)
        for p, shape in chosen.items()
        if p.partition(".")[0] in kind.projections
    }
    return {where: found[where] for where in sort_addresses(found)}


def promised_shapes(label: str, backbone: Backbone) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the granularity, at the projections and layers that a case scores."""
    kind, skipped = granularity_of(CASES[label].method), CASES[label].options.get("skip_layers", 0)
    return {
        where: shape
        for where, shape in expected_shapes(kind, backbone).items()
        if (parse_address(where).layer or 0) >= skipped
    }


@every_method
@every_family
def test_scores_cover_what_the_granularity_promises(label, family, adapter_of):
    backbone = backbone_of(family)
    evidence = gather(label, backbone, adapter_of(family))
    scored = list(CASES[label].module.scores(backbone, evidence, CASES[label].options))
    expected = promised_shapes(label, backbone)
    assert [(where, tuple(values.shape)) for where, values in scored] == list(expected.items())
    assert all(values.dtype == torch.float32 and values.isfinite().all() for _, values in scored)
    # `keep_top` calls `scores` more than once.
    again = CASES[label].module.scores(backbone, evidence, CASES[label].options)
    assert all(torch.equal(values, more) for (_, values), (_, more) in zip(scored, again, strict=True))


PROMPTS = ["aaa", "bbbb", "ccccc"]


def chosen(dataset: str) -> Chosen:
    rows = [{"prompt_id": f"{dataset}/{i}", "prompt": p, "response": "No."} for i, p in enumerate(PROMPTS)]
    return Chosen(rows, {f"{dataset}: empty": 2})


@every_method
@every_family
def test_a_job_stores_what_the_method_scores(label, family, adapter_of):
    """With a kept fraction of 1 the table must hold every score; its metadata must say how it was computed."""
    backbone, (method, options) = backbone_of(family), CASES[label]
    granularity = CASES[label].card["granularity"]
    job = Job(load_method(method), options, {"global": 1.0}, batch_size=2)
    [(groups, metadata)] = score(
        backbone, [parse_name("a")], job, chosen("a"), chosen("n"), adapter_of(family)
    )
    table = conform(pa.concat_tables([group.stored for group in groups]), score_contract(granularity))
    shapes = promised_shapes(label, backbone)
    assert metadata["granularity"] == granularity and metadata["shapes"] == {
        a: list(s) for a, s in shapes.items()
    }
    assert metadata["weight_shapes"] == {
        where: list(shape) for where, shape in expected_shapes(GRANULARITIES["weight"], backbone).items()
    }
    assert (metadata["method"], metadata["options"], metadata["kept"]) == (method, options, {"global": 1.0})
    assert (metadata["samples_used"], metadata["samples_skipped"]) == (3, {"a: empty": 2})
    assert metadata["response_tokens"] == 3 * len("No.")
    samples = [
        Sample(f"a/{i}", ids, n) for i, (ids, n) in enumerate(backbone.encode(p, "No.") for p in PROMPTS)
    ]
    normal = [sample._replace(prompt_id=f"n/{i}") for i, sample in enumerate(samples)]
    evidence = CASES[label].module.gather(backbone, Samples(samples, normal, adapter_of(family), 2), options)
    dense = [values.flatten() for _, values in CASES[label].module.scores(backbone, evidence, options)]
    assert table["score"].to_pylist() == torch.cat(dense).tolist()


@every_method
@every_family
def test_twice_gives_the_same_bits_and_batches_change_nothing(label, family, adapter_of):
    backbone, adapter = backbone_of(family), adapter_of(family)
    one = run(label, backbone, adapter, batch_size=1)
    assert_same(run(label, backbone, adapter, batch_size=1), one)
    for size in (2, 5):
        assert_close(label, run(label, backbone, adapter, batch_size=size), one)


@every_method
@every_family
def test_padding_changes_nothing(label, family, adapter_of, monkeypatch):
    """A short sample must score the same alone, beside much longer samples, and with other tokens as padding."""
    backbone, adapter, samples = (
        backbone_of(family),
        adapter_of(family),
        samples_of(((3, 2), (40, 9), (60, 5))),
    )
    alone = run(label, backbone, adapter, samples, batch_size=1)
    assert_close(label, run(label, backbone, adapter, samples), alone)
    make, made = batching.padded, []

    def with_other_padding(group: list[Sample]) -> Batch:
        batch = make(group)
        made.append(torch.where(batch.attention_mask == 1, batch.input_ids, pad))
        return batch._replace(input_ids=made[-1])

    package = [module for name, module in sys.modules.items() if name.startswith("safety_regions.")]
    for module in package:
        if getattr(module, "padded", None) is make:
            monkeypatch.setattr(module, "padded", with_other_padding)
    for pad in (201, 256):
        made.clear()
        assert_close(label, run(label, backbone, adapter, samples), alone)
        assert looks_at_samples(label) == any((ids[:, -1] == pad).any() for ids in made)


@every_method
@every_family
def test_memory_that_runs_out_halves_the_batch_and_changes_nothing(label, family, adapter_of, monkeypatch):
    backbone, adapter, sizes = based_backbone(family), adapter_of(family), []
    expected = run(label, backbone, adapter, batch_size=2)

    def full(_module, _args, given):
        sizes.append(len(given["input_ids"]))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    decoders = backbone.decoder, backbone.base.decoder
    with attached([decoder.register_forward_pre_hook(full, with_kwargs=True) for decoder in decoders]):
        assert_same(run(label, backbone, adapter, batch_size=4), expected)
    assert looks_at_samples(label) == (max(sizes, default=0) == 4)


def split_state(
    phi: Backbone, tensors: dict[str, torch.Tensor], shared: str = "none"
) -> dict[str, torch.Tensor]:
    """Rename and split tensors as in a model without fused projections; each part gets ``shared`` tensors whole."""
    split = {}
    for name, tensor in tensors.items():
        fused = next((f for f in FUSED if f in name), None)
        if fused is None:
            split[name] = tensor
            continue
        parts = FUSED[fused]
        rows = tensor.split([phi.rows_of(p) for p in parts]) if shared not in name else [tensor] * len(parts)
        split |= {name.replace(fused, f"{p}_proj"): r.clone() for p, r in zip(parts, rows, strict=True)}
    return split


@pytest.fixture(scope="module")
def twins(adapter_of, tmp_path_factory):
    """Return a Phi-3 and a Llama of the same weights, each with its adapter: (backbone, adapter) twice."""
    phi, folder = backbone_of("phi3"), tmp_path_factory.mktemp("split")
    llama = based_backbone("llama3", tie_word_embeddings=True, rms_norm_eps=phi.config.rms_norm_eps)
    for ours, theirs in ((llama, phi), (llama.base, phi.base)):
        ours.model.load_state_dict(split_state(phi, theirs.model.state_dict()))
    factors = load_file(adapter_of("phi3") / "adapter_model.safetensors")
    save_file(split_state(phi, factors, shared="lora_A"), folder / "adapter_model.safetensors")
    config = (adapter_of("phi3") / "adapter_config.json").read_text()
    (folder / "adapter_config.json").write_text(config)
    return (phi, adapter_of("phi3")), (llama, folder)


def test_the_fused_twin_is_the_same_model(twins):
    ids = torch.tensor([sample.ids[:4] for sample in samples_of()])
    (phi, _), (llama, _) = twins
    with torch.no_grad():
        torch.testing.assert_close(llama.model(ids).logits, phi.model(ids).logits, rtol=1e-5, atol=1e-5)


@every_method
def test_fused_equals_split(label, twins):
    """Phi-3 must score as a Llama of its weights, where each projection has its own copy of a shared factor A."""
    fused, split = (run(label, *twin) for twin in twins)
    more = split.keys() - fused.keys()
    assert_close(label, {where: split[where] for where in fused}, fused)
    served = {"k.A": "q.A", "v.A": "q.A", "up.A": "gate.A"}
    for where in more:
        layer, projection = where.rsplit(".", 2)[0], ".".join(where.rsplit(".", 2)[1:])
        assert torch.equal(split[where], split[f"{layer}.{served[projection]}"])


@every_method
@every_family
def test_the_backbone_is_left_as_it_was(label, family, adapter_of):
    """Weights, buffers, modes and attention must not change by a bit; no gradient, hook or module may remain."""
    backbone, adapter = based_backbone(family), adapter_of(family)
    models = [backbone.model, backbone.base.model]

    def looks(model) -> tuple:
        modules = [(name, type(m), m.training) for name, m in model.named_modules()]
        hooks = [
            len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks)
            for m in model.modules()
        ]
        grads = [(p.requires_grad, p.grad is None) for p in model.parameters()]
        return modules, sum(hooks), set(grads), model.config._attn_implementation

    tensors = [{name: t.clone() for name, t in model.state_dict(keep_vars=False).items()} for model in models]
    before = [looks(model) for model in models]
    read(label, backbone, gather(label, backbone, adapter))
    assert all(look[1:3] == (0, {(False, True)}) for look in before)
    assert [looks(model) for model in models] == before
    for model, kept in zip(models, tensors, strict=True):
        assert_same(dict(model.state_dict()), kept)


@every_family
@pytest.mark.parametrize("tied", [True, False])
def test_embedding_head_norms_and_biases_have_no_address(family, tied):
    """The weights with an address must be exactly those of the decoder blocks' linear layers, each entry once."""
    backbone = tiny_backbone(family, tie_word_embeddings=tied)
    blocks = {
        f"{name}.weight": module.weight
        for name, module in backbone.model.named_modules()
        if isinstance(module, torch.nn.Linear) and "lm_head" not in name
    }
    addressed = {weight.untyped_storage().data_ptr() for _, weight in backbone.weights()}
    assert addressed == {weight.untyped_storage().data_ptr() for weight in blocks.values()}
    entries = sum(weight.numel() for _, weight in backbone.weights())
    assert entries == sum(weight.numel() for weight in blocks.values())
    others = [p for name, p in backbone.model.named_parameters() if name not in blocks]
    assert others and not addressed & {p.untyped_storage().data_ptr() for p in others}
    assert list(backbone.shapes) == [f"layers.{i}.{p}" for i in range(LAYERS) for p in PROJECTIONS]


@cache
def heads_of(family: str) -> tuple[Backbone, Backbone]:
    """Return two backbones of the same weights: one with a tied output head, one with a copy of the embedding."""
    tied, untied = (based_backbone(family, tie_word_embeddings=tie) for tie in (True, False))
    for ours, theirs in ((untied, tied), (untied.base, tied.base)):
        ours.model.load_state_dict(theirs.model.state_dict())
    heads = [backbone.model.get_output_embeddings().weight for backbone in (tied, untied)]
    embeddings = [backbone.model.get_input_embeddings().weight for backbone in (tied, untied)]
    assert torch.equal(*heads) and heads[0] is embeddings[0] and heads[1] is not embeddings[1]
    return tied, untied


@every_method
@every_family
def test_a_copied_output_head_scores_as_a_tied_one(label, family, adapter_of):
    expected, found = (run(label, backbone, adapter_of(family)) for backbone in heads_of(family))
    assert_close(label, found, expected)


@every_method
@every_family
def test_a_shuffle_is_its_seed_and_keeps_weights_and_marginals(label, family, adapter_of):
    """In evidence of one tensor per address, each address must keep its values; NLSR and ActSVD test their own."""
    backbone, adapter = backbone_of(family), adapter_of(family)
    shuffle = partial(CASES[label].module.shuffled, kind="")
    evidence = gather(label, backbone, adapter)
    plain, weights = read(label, backbone, evidence), {a: w.clone() for a, w in backbone.weights()}
    once, again, other = (shuffle(evidence, seed) for seed in (1, 1, 2))
    first, second, third = (read(label, backbone, some) for some in (once, again, other))
    assert_same(second, first)
    assert_same(read(label, backbone, evidence), plain)  # the given evidence is unchanged
    assert {where: v.shape for where, v in first.items()} == {where: v.shape for where, v in plain.items()}
    assert all(values.isfinite().all() for values in first.values())
    moved = [not torch.equal(first[where], some[where]) for some in (plain, third) for where in plain]
    assert any(moved) == bool(evidence), (
        "shuffled evidence must change the scores of every method that has evidence"
    )
    assert_same(dict(backbone.weights()), weights)
    if isinstance(evidence, dict) and not CASES[label].module.granularity.subspaces:
        for where, values in evidence.items():
            assert torch.equal(once[where].flatten().sort().values, values.flatten().sort().values)


# Whole layers have no pools of shuffles; with NLSR's `sequential`, a block depends on all prompts (see its `merge`).
MERGED = [
    label
    for label, case in CASES.items()
    if not case.module.granularity.exact_floor and not case.options.get("sequential")
]


@pytest.mark.parametrize("label", MERGED)
@every_family
def test_merging_two_groups_is_gathering_both(label, family, adapter_of):
    backbone, adapter, samples = backbone_of(family), adapter_of(family), samples_of()
    groups = samples[:2], samples[2:]
    parts = [gather(label, backbone, adapter, group) for group in groups]
    merged = CASES[label].module.merge(*parts, groups, CASES[label].options)
    assert_close(label, read(label, backbone, merged), run(label, backbone, adapter, samples))
