"""The order of a turn: nothing is handed to a worker between its end and the news of it."""

from unittest.mock import MagicMock

from pipeline.coordinator import Coordinator, Feed
from pipeline.stats import Stats
from pipeline.work import ScoreTask


def test_a_worker_that_hangs_is_ended_after_the_tasks_of_the_turn_are_handed_out():
    hanging = ScoreTask(seq=1, worker=0, pieces=(), size=8)
    late = ScoreTask(seq=2, worker=0, pieces=(), size=8)  # it had room for one more
    scheduler, engine = MagicMock(), MagicMock()
    scheduler.configure_mock(is_done=False)
    scheduler.overdue.return_value = [hanging]
    scheduler.admit.return_value = [late]
    scheduler.take_events.return_value = []
    scheduler.next_wakeup.return_value = None
    scheduler.ledger.window.num_open = scheduler.ledger.window.num_bytes = scheduler.ledger.rows.num_rows = 0
    coordinator = Coordinator(MagicMock(), scheduler, engine, Feed(), MagicMock(), Stats(), clock=lambda: 10.0)
    coordinator.step()
    assert [call[0] for call in engine.method_calls] == ["submit", "restart", "wait"]
