"""A clip that others push back is served in the end."""

import pytest

from pipeline.batching import RowQueue
from pipeline.work import Piece


@pytest.mark.parametrize(("waited_s", "first"), [(4.0, 2), (6.0, 1)])
def test_a_clip_that_has_waited_too_long_goes_before_the_scorers_own(waited_s, first):
    rows = RowQueue(deadline_s=1.0, starvation_s=5.0)
    rows.put(Piece(1, 0, 0, 8), 0.0, home=1)  # of another scorer, which never comes
    rows.put(Piece(2, 0, 0, 8), waited_s - 0.1, home=0)
    (piece,) = rows.take(0, 8, waited_s, is_idle=True, may_arrive=False)
    assert piece.job == first


def test_a_home_that_is_never_without_work_starves_nobody():
    rows = RowQueue(deadline_s=1.0, starvation_s=5.0)
    rows.put(Piece(0, 0, 0, 8), 0.0, home=1)
    served = []
    for turn in range(1, 20):
        rows.put(Piece(turn, 0, 0, 8), float(turn), home=0)
        (piece,) = rows.take(0, 8, float(turn), is_idle=True, may_arrive=True)
        served.append(piece.job)
    assert served.index(0) == 4
