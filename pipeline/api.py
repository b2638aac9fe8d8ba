"""What stands behind `from pipeline import explain`: a run, read back into memory."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.config import load_config
from pipeline.results import read_explanations
from pipeline.runner import run
from stages.errors import ExplainError
from stages.records import Explanation


def explain_in_memory(
    sources: Sequence[str], settings: Mapping[str, object], out: str | os.PathLike[str] | None
) -> list[Explanation]:
    """Run into `out`, or into a temporary folder, and read the maps. Raises the first failure when there is no map."""
    config = load_config(options=settings)
    with tempfile.TemporaryDirectory(prefix="heatreel-") as temporary:
        folder = Path(temporary) / "run" if out is None else os.fspath(out)
        outcome = run(config, list(sources), folder, is_quiet=True)
        explanations = list(read_explanations(outcome.path))
        if not explanations and outcome.failures:
            first = outcome.failures[0]
            raise ExplainError(first.uri, first.reason, first.remedy)
    return explanations
