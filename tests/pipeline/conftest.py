"""What tests of whole runs share."""

import pytest

from pipeline import runner


@pytest.fixture
def fleets(monkeypatch):
    """The fleets that runs make, so that a test can reach their actors."""
    made = []
    original = runner.make_fleet

    def make(*args):
        made.append(original(*args))
        return made[-1]

    monkeypatch.setattr(runner, "make_fleet", make)
    return made
