"""A run says on a video's page what probabilities of few classes leave open."""

from pathlib import Path

import pytest
from small_runs import BOX, config, write_scene

from pipeline.manifest import RunFolder
from pipeline.runner import run

pytestmark = pytest.mark.slow

FACTORY = """
import importlib.util
spec_of = importlib.util.spec_from_file_location("quadrants_inside", {path!r})
module = importlib.util.module_from_spec(spec_of)
spec_of.loader.exec_module(module)

def make():
    box, spec = module.make()
    return (lambda frames: box(frames).softmax(1)), spec.model_copy(update={{"scores": {kind!r}}})
"""


@pytest.mark.parametrize("kind", ["probabilities", "top_k"])
def test_the_page_of_a_video_says_it_once_and_the_manifest_what_holds_for_the_model(tmp_path: Path, kind: str) -> None:
    factory = tmp_path / "probabilities.py"
    factory.write_text(FACTORY.format(path=str(BOX), kind=kind))
    scene = write_scene(tmp_path / "scene.mp4", 12)
    settings = config(model__name=f"python:{factory}:make")
    assert run(settings, [str(scene)], tmp_path / "run", is_quiet=True).exit_code == 0
    found = RunFolder.open(tmp_path / "run").manifest.model["warnings"]
    assert [("only its top classes" in warning) for warning in found] == [True] * (kind == "top_k")
    (summary,) = RunFolder.open(tmp_path / "run").summaries()
    assert sum("1/4 of each other" in warning for warning in summary.warnings) == 1
    assert any("1/4 of each other" in page.read_text() for page in (tmp_path / "run" / "report").glob("**/*.html"))
