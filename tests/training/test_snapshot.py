"""A training phase that was interrupted goes on from its snapshot and ends with the same bits."""

import pytest
import torch

from safety_regions.training.loop import Chat, Hold, reproducible, train_phase
from safety_regions.training.snapshot import Snapshot
from tests.tiny import tiny_model

CHATS = [Chat([257, *range(40, 40 + n)], [*range(90, 90 + n % 5), 258]) for n in range(3, 12)]
STEPS = 9


@pytest.fixture
def often(monkeypatch):
    """Take a snapshot after every step."""
    monkeypatch.setattr("safety_regions.training.snapshot.SECONDS", 0)


class Stop(Exception):
    """Stands for a kill."""


def trained(snapshot: Snapshot | None, stop_before: int | None = None):
    """Train for some steps; ``stop_before`` is the step in which the phase is interrupted."""
    taken = 0

    def after_step() -> None:
        nonlocal taken
        taken += 1
        if taken == stop_before:
            raise Stop

    with reproducible(3):
        model = tiny_model("llama", num_hidden_layers=1)
        hold = Hold([*model.parameters()], after_step)
        losses = train_phase(
            model, [CHATS[:4], CHATS[4:]], steps=STEPS, learning_rate=0.02, batch=4, pad=256, seed=3, hold=hold,
            snapshot=snapshot,
        )  # fmt: skip
    return model.state_dict(), losses, taken


@pytest.mark.slow
@pytest.mark.parametrize("stop_before", [2, 6, STEPS])
def test_an_interrupted_phase_ends_with_the_same_bits(stop_before, tmp_path, often):
    whole, losses, _ = trained(None)
    with pytest.raises(Stop):
        trained(Snapshot(tmp_path / "snapshot", "plan"), stop_before)
    weights, again, taken = trained(Snapshot(tmp_path / "snapshot", "plan"))
    assert taken == STEPS - (stop_before - 1)
    assert again == losses
    assert all(torch.equal(weights[name], whole[name]) for name in whole)


def test_a_snapshot_of_another_training_is_not_used(tmp_path, often):
    with pytest.raises(Stop):
        trained(Snapshot(tmp_path / "snapshot", "one"), 5)
    assert trained(Snapshot(tmp_path / "snapshot", "two"))[2] == STEPS


def test_snapshots_are_rare_and_leave_no_file_behind(tmp_path):
    snapshot = Snapshot(tmp_path / "snapshot", "plan")
    with pytest.raises(Stop):
        trained(snapshot, STEPS - 1)
    assert not list(tmp_path.iterdir()), "a part of a second needs none"
    trained(snapshot)
    assert list(tmp_path.iterdir()) == [tmp_path / "snapshot"]
    snapshot.remove()
    snapshot.remove()
    assert not list(tmp_path.iterdir())
