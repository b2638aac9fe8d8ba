"""The order of a turn: nothing is handed to a worker between its end and the news of it. Who may be a worker at all."""

from unittest.mock import MagicMock

import pytest

from pipeline.config import make_config
from pipeline.coordinator import Coordinator
from pipeline.engine import WorkerUp
from pipeline.manifest import RunFolder
from pipeline.orders import Feed
from pipeline.runner import write_down_model
from pipeline.stats import Stats
from pipeline.topology import ScorerReport
from pipeline.work import ScoreTask
from stages.box import BoxSpec
from stages.errors import ManifestError, ModelError
from stages.tuning import Tuning


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


@pytest.mark.parametrize(("weights", "is_taken"), [("abc", True), ("def", False)])
def test_a_scorer_with_other_weights_is_given_nothing_and_ends_the_run(weights, is_taken):
    scheduler = MagicMock()
    scheduler.take_events.return_value = []
    coordinator = Coordinator(
        MagicMock(), scheduler, MagicMock(), Feed(), MagicMock(), Stats(), weights_sha256="abc", clock=lambda: 10.0
    )
    coordinator.take(WorkerUp(stage="score", worker=3, report=_report(weights)))
    assert scheduler.worker_up.called is is_taken
    assert scheduler.abandon.called is not is_taken
    if not is_taken:
        assert isinstance(coordinator.error, ModelError)
        assert "scorer 3 loaded other weights (def) than the run has (abc)" in str(coordinator.error)


@pytest.mark.parametrize(
    ("recorded", "words"), [({}, "scorer 1 loaded other weights"), ({"weights_sha256": "old"}, "changed since")]
)
def test_coordinators_whose_first_scorers_differ_do_not_begin(tmp_path, recorded, words):
    folder = RunFolder.create(tmp_path / "run", {})
    folder.update(model=recorded)
    with pytest.raises((ModelError, ManifestError), match=words):
        write_down_model(make_config({}), folder, [_report("abc"), _report("def")])
    assert folder.manifest.model == recorded


def _report(weights):
    return ScorerReport(
        spec=BoxSpec(name="box", height=8, width=8),
        weights_sha256=weights,
        device="cpu",
        tuning=Tuning(batch_size=4, evaluations_per_s=1.0),
    )
