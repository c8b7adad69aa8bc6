"""In the training loop, padding changes no loss, pools have equal shares, and the same seed gives the same bits."""

import random
from collections import Counter
from itertools import islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safety_regions.training.loop import (
    Chat,
    Hold,
    batches,
    collate,
    reproducible,
    response_loss,
    train_phase,
)
from tests.tiny import FAMILIES, tiny_model

CHATS = [
    Chat([257, *range(40, 40 + n)], [*range(90, 90 + m), 258]) for n, m in ((3, 4), (9, 1), (1, 7), (5, 5))
]


def literal_loss(model, chat: Chat) -> torch.Tensor:
    """Return the sum of -log p over the response tokens of one chat without padding."""
    ids = torch.tensor([chat.prompt + chat.response])
    log_p = model(ids).logits[0].log_softmax(-1)
    places = range(len(chat.prompt), ids.shape[1])
    return -sum(log_p[place - 1, ids[0, place]] for place in places)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_loss_of_a_batch_is_the_mean_over_its_response_tokens(family):
    model = tiny_model(family).eval()
    with torch.no_grad():
        expected = sum(literal_loss(model, chat) for chat in CHATS) / sum(
            len(chat.response) for chat in CHATS
        )
        for pad in (256, 0):
            assert torch.allclose(response_loss(model, collate(CHATS, pad)), expected, rtol=1e-4)


def test_every_response_begins_in_the_same_column():
    batch = collate(CHATS, 256)
    longest = max(len(chat.prompt) for chat in CHATS)
    for row, chat in enumerate(CHATS):
        assert batch.ids[row, longest : longest + len(chat.response)].tolist() == chat.response
        assert batch.mask[row].sum() == len(chat.prompt) + len(chat.response)
        kept = batch.mask[row].bool()
        assert batch.ids[row][kept].tolist() == chat.prompt + chat.response
        assert batch.positions[row][kept].tolist() == list(range(kept.sum()))
        assert batch.labels[row][batch.labels[row] >= 0].tolist() == chat.response


@given(st.lists(st.integers(1, 40), min_size=1, max_size=3), st.integers(1, 12), st.integers(0, 99))
def test_every_batch_takes_an_equal_share_of_each_pool_and_pools_are_used_up_in_turn(sizes, share, seed):
    pools = [[Chat([pool] * (1 + i % 7), [i]) for i in range(size)] for pool, size in enumerate(sizes)]
    count = 40
    drawn = list(islice(batches(pools, share * len(pools), random.Random(seed)), count))
    for batch in drawn:
        assert Counter(chat.prompt[0] for chat in batch) == {pool: share for pool in range(len(pools))}
    for pool, size in enumerate(sizes):
        times = Counter(chat.response[0] for batch in drawn for chat in batch if chat.prompt[0] == pool)
        assert times.total() == count * share
        assert max(times.values()) - min(times[i] for i in range(size)) <= 1


def trained(seed: int):
    with reproducible(seed):
        model = tiny_model("llama", num_hidden_layers=1)
        losses = train_phase(
            model, [CHATS[:2], CHATS[2:]], steps=60, learning_rate=0.03, batch=4, pad=256, seed=seed
        )
    return model, losses


@pytest.mark.slow
def test_a_phase_learns_and_the_same_seed_gives_the_same_bits():
    model, losses = trained(0)
    again, same = trained(0)
    assert losses[-1] < losses[0] / 2
    assert not model.training
    assert losses == same
    for one, two in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)
    assert trained(1)[1] != losses


def test_a_phase_changes_only_what_its_hold_frees_and_calls_it_after_every_step():
    model, calls = tiny_model("llama", num_hidden_layers=1), []
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    name = "model.layers.0.mlp.up_proj.weight"
    hold = Hold([model.get_parameter(name)], lambda: calls.append(model.get_parameter(name).detach().clone()))
    train_phase(model, [CHATS], steps=5, learning_rate=0.03, batch=4, pad=256, seed=0, hold=hold)
    changed = {n for n, parameter in model.named_parameters() if not torch.equal(parameter, before[n])}
    assert changed == {name}
    assert len(calls) == 5
    assert not torch.equal(calls[0], before[name])
    assert torch.equal(calls[-1], model.get_parameter(name))


def test_reproducible_leaves_the_process_as_it_was():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    threads = torch.get_num_threads()
    with pytest.raises(KeyError), reproducible(0):
        assert torch.get_num_threads() == 1
        assert torch.are_deterministic_algorithms_enabled()
        torch.rand(7)
        raise KeyError
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()
