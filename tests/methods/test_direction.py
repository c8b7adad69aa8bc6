"""Scores along a direction equal their slow definition; contributions sum up to the direction's length."""

import pytest
import torch

from safety_regions.methods import direction
from safety_regions.model.backbone import Backbone, attached
from safety_regions.scoring.samples import Samples
from safety_regions.scoring.states import DEPTH, blocks_before
from safety_regions.study.method_shelf import method_cards
from tests.oracles import direction as oracle
from tests.scoring.test_moments import classes
from tests.tiny import FAMILIES, tiny_backbone

DEFINED = method_cards()["direction"]["options"]
OPTIONS = {name: option["default"] for name, option in DEFINED.items()}
STATISTICS = DEFINED["statistic"]["enum"]
AS_THEY_ARE = [name for name in FAMILIES if not tiny_backbone(name).family.post_norms]
"""Families whose blocks add the outputs of o and down to the stream without a norm."""


def in_one_template(samples: Samples) -> Samples:
    """All prompts end in the same token, as those of a chat template do."""
    return samples._replace(
        identification=[_ending(sample) for sample in samples.identification],
        contrast=[_ending(sample) for sample in samples.contrast],
    )


def _ending(sample):
    n = sample.prompt_length
    return sample._replace(ids=[*sample.ids[: n - 1], 65, *sample.ids[n:]])


def entering(backbone: Backbone, samples) -> torch.Tensor:
    """The mean of what enters the first block at the last prompt token: embeddings, perhaps times a factor."""
    seen = []
    hook = backbone.blocks[0].register_forward_pre_hook(lambda _m, args: seen.append(args[0][0, -1]))
    with torch.no_grad(), attached([hook]):
        for sample in samples:
            backbone.model(input_ids=torch.tensor([sample.prompt.ids]), use_cache=False)
    return torch.stack(seen).double().mean(0)


def total_until(backbone: Backbone, evidence: dict, n_blocks: int) -> float:
    """The sum of all signed contributions of the first blocks, each neuron once."""
    found = [
        direction.details(backbone, evidence, OPTIONS, f"layers.{layer}.{projection}")["contribution"]
        for layer in range(n_blocks)
        for projection in ("v", "down")
    ]
    return float(torch.cat(found).sum()) * getattr(backbone.config, "residual_multiplier", 1.0)


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_their_definition(family):
    backbone, samples = tiny_backbone(family), classes()
    evidence = direction.gather(backbone, samples, OPTIONS)
    r = oracle.direction(backbone, samples.identification, samples.contrast, blocks=2)
    columns = oracle.written(backbone, samples.identification, samples.contrast, r)
    for name in STATISTICS:
        found = dict(direction.scores(backbone, evidence, OPTIONS | {"statistic": name}))
        literal = oracle.statistics(columns, name)
        for projection, side in (("v", "v"), ("down", "up"), ("down", "down")):
            expected = torch.tensor(literal[projection], dtype=torch.float64)
            scored = torch.stack([found[f"layers.{layer}.{side}"] for layer in range(3)])
            error = (scored.double() - expected.abs()).abs().max() / expected.abs().max()
            assert error < 2e-5, f"{name} of {side}: {error:.1e}"
            if name == "contribution":
                assert (expected < 0).any() and (expected > 0).any()
                columns_of = [
                    direction.details(backbone, evidence, OPTIONS, f"layers.{layer}.{side}")["contribution"]
                    for layer in range(3)
                ]
                torch.testing.assert_close(torch.stack(columns_of), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("depth, n_blocks", [(0.01, 1), (0.6, 2), (1.0, 3)])
@pytest.mark.parametrize("family", AS_THEY_ARE)
def test_contributions_sum_up_to_the_length_of_the_direction(family, depth, n_blocks):
    """With one final token; otherwise the embeddings of the final tokens contribute the rest."""
    backbone, given = tiny_backbone(family), OPTIONS | {"depth": depth}
    for samples in (in_one_template(classes()), classes()):
        evidence = direction.gather(backbone, samples, given)
        r = evidence[direction.STREAM]
        found = direction.findings(backbone, evidence, given)
        assert found == {"blocks_before": n_blocks, "norm": pytest.approx(float(r.norm()))}
        first = entering(backbone, samples.identification) - entering(backbone, samples.contrast)
        rest = float(first @ r / r.norm())
        assert (abs(rest) < 1e-5) == (samples.identification[0].ids[6] == 65)
        assert total_until(backbone, evidence, n_blocks) + rest == pytest.approx(float(r.norm()), rel=1e-4)


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - set(AS_THEY_ARE)))
def test_a_norm_after_the_mlp_breaks_the_sum(family):
    """The docstring says so."""
    backbone, samples = tiny_backbone(family), in_one_template(classes())
    evidence = direction.gather(backbone, samples, OPTIONS)
    length = float(evidence[direction.STREAM].norm())
    assert abs(total_until(backbone, evidence, 2) - length) > 0.1 * length


def test_columns_without_weights_have_no_cosine():
    backbone = tiny_backbone("llama")
    with torch.no_grad():
        dict(backbone.weights())["layers.1.down"][:, 3] = 0
    given = OPTIONS | {"statistic": "cosine"}
    scored = dict(direction.scores(backbone, direction.gather(backbone, classes(), given), given))
    assert scored["layers.1.up"][3] == 0 and (scored["layers.1.up"] > 0).sum() == 47
    assert all(values.max() <= 1 + 1e-6 for values in scored.values())


@pytest.mark.parametrize("statistic", STATISTICS)
def test_a_shuffle_moves_the_direction_and_the_inputs_apart(statistic):
    """Sizes of columns stay: of a shuffled direction, a neuron with a long column still has a large `static` score."""
    backbone, given = tiny_backbone("qwen2"), OPTIONS | {"statistic": statistic}
    evidence = direction.gather(backbone, classes(), given)
    shuffled = direction.shuffle(evidence, 1)
    for where, values in evidence.items():
        assert not torch.equal(shuffled[where], values)
    assert shuffled[direction.STREAM].norm() == pytest.approx(float(evidence[direction.STREAM].norm()))
    plain, moved = (dict(direction.scores(backbone, some, given)) for some in (evidence, shuffled))
    assert all(not torch.equal(plain[where], moved[where]) for where in plain)


def test_a_depth_is_rounded_to_blocks():
    assert [blocks_before(depth, 32) for depth in (0.001, DEPTH, 1)] == [1, 19, 32]
    assert blocks_before(0.5, 5) == 3 and OPTIONS["depth"] == DEPTH
