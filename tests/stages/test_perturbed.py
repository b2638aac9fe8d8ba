"""Where batches lie: in the same memory one after the other, unless somebody holds the one before."""

import numpy as np
import pytest
import torch

from stages.perturbed import Room

LIKE = torch.zeros(2, 3, 64, 64)
HOLDS = {
    "itself": lambda batch: batch,
    "a view": lambda batch: batch[1, :, 0],
    "an array": lambda batch: batch.numpy(),
    "another library's": lambda batch: np.from_dlpack(batch),
    "a graph": lambda batch: (batch * torch.ones(1, requires_grad=True)).sum(),
}


def test_blocks_that_live_on_do_not_settle_where_a_batch_was() -> None:
    room, places, blocks = Room(), set(), []
    for count in (4, 4, 3, 4, 1, 4):
        batch = room.batch(count, LIKE)
        places.add(batch.data_ptr())
        assert batch.shape == (count, *LIKE.shape)
        del batch
        blocks.append(torch.empty(LIKE.numel()))
    assert len(places) == 1


@pytest.mark.parametrize("holds", HOLDS)
def test_a_batch_that_is_held_keeps_its_numbers(holds: str) -> None:
    room = Room()
    first = room.batch(2, LIKE).fill_(1)
    place, held = first.data_ptr(), HOLDS[holds](first)
    del first
    second = room.batch(2, LIKE).fill_(2)
    assert second.data_ptr() != place
    if holds == "a graph":
        held.backward()
    else:
        assert float(held.min()) == float(held.max()) == 1
    del second, held
    third = room.batch(2, LIKE)
    assert third.data_ptr() != place  # what was held is gone with its holder; the second's memory is used on


def test_a_batch_has_the_order_of_axes_of_its_clips() -> None:
    like = LIKE.contiguous(memory_format=torch.channels_last)
    batch = Room().batch(5, like)
    assert batch[3].stride() == like.stride()
    assert batch[3].is_contiguous(memory_format=torch.channels_last)
