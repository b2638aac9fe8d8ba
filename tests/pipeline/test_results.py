from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from planted_run import GEOMETRY, run_sink, sink_spec, write_video

from pipeline.artifacts import merge_tables
from pipeline.demo import cells_of
from pipeline.manifest import RunFolder
from pipeline.results import read_explanations
from stages.errors import ManifestError
from stages.evidence import decompose_arrays
from stages.records import Explanation

LABELS = ["dog", "cat", "<b>bird</b>", "fish", "newt"]


def planted_run(folder: Path, video: Path) -> RunFolder:
    run = RunFolder.create(folder, {})
    spec = sink_spec(run.path, write_video(video))
    run.register(spec.source)
    run.complete(run_sink(spec))
    merge_tables(run.path, [spec.source.id])
    run.update(model={"name": "planted", "labels": LABELS})
    run.finish("finished", {})
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("results")
    return planted_run(folder / "run", folder / "v.mp4")


@pytest.fixture(scope="module")
def explanation(run: RunFolder) -> Explanation:
    (found,) = read_explanations(run.path)
    return found


def test_the_maps_come_back_for_every_frame(explanation: Explanation) -> None:
    assert explanation.mean.shape == (3, 12, 6, 8)
    assert explanation.target == "cat"
    assert explanation.source.id == "v"
    np.testing.assert_allclose(explanation.pts_s, np.arange(12) / 10, atol=1e-9)
    assert explanation.is_seen.all()
    support = decompose_arrays(explanation.outputs, explanation.mean, explanation.var)["support"]
    assert support[:, :3, :4].min() > 0
    assert support[:, 3:].max() == 0


def test_fidelity_regions_and_their_effects_come_back(explanation: Explanation) -> None:
    assert [fidelity.q2 for fidelity in explanation.fidelity] == [0.8, 0.8, 0.8]
    assert explanation.is_significant
    strongest = max((region for region in explanation.regions if region.kind == "support"), key=lambda r: r.mass)
    assert strongest.boxes.shape == (strongest.frames[1] - strongest.frames[0], 4)
    assert strongest.effect is not None
    assert strongest.effect.prob_after < strongest.effect.prob_before
    assert strongest.effect.top1_before == LABELS.index("cat")
    assert strongest.effect.top1_after != strongest.effect.top1_before


def test_provenance_names_the_run_and_the_hash_of_the_maps(run: RunFolder, explanation: Explanation) -> None:
    assert explanation.provenance["run_id"] == run.manifest.run_id
    assert explanation.provenance["maps_sha256"] in run.manifest.outputs.values()


def test_missing_maps_are_named(tmp_path: Path) -> None:
    run = planted_run(tmp_path / "run", tmp_path / "v.mp4")
    (maps,) = (run.path / "maps").iterdir()
    maps.rename(tmp_path / "elsewhere")
    with pytest.raises(ManifestError, match="maps cannot be read"):
        list(read_explanations(run.path))


def test_a_mask_in_source_pixels_falls_on_the_cells_it_covers(explanation: Explanation) -> None:
    mask = np.zeros((12, GEOMETRY.source_h_px, GEOMETRY.source_w_px), bool)
    mask[:, :8, 16:24] = True  # 6 x 8 cells of 8 x 8 source pixels: row 0, column 2
    cells = cells_of(mask, explanation)
    wanted = np.zeros((12, 6, 8))
    wanted[:, 0, 2] = 1
    np.testing.assert_allclose(cells, wanted)


def test_letterbox_bars_belong_to_no_mask(explanation: Explanation) -> None:
    # The source is 24 px high and fills the middle half of the model's picture.
    geometry = replace(GEOMETRY, source_h_px=24, offset_y_px=-12.0)
    cells = cells_of(np.ones((12, 24, 64), bool), replace(explanation, geometry=geometry))
    assert cells[0, :, 0] == pytest.approx([0, 0.5, 1, 1, 0.5, 0])
