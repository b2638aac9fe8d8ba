import numpy as np
import pytest
from PIL import Image

from stages.records import OUTPUTS, FrameMap, Geometry
from stages.render import RenderConfig, compose_picture, render_picture, write_picture
from stages.scale import choose_scale
from stages.sources import probe
from stages.strip import Caption, Strip, number
from stages.timeline import clock, tick_step

GRID = (7, 7)
CAPTION = Caption(target="tiger cat", model="planted", voxels_per_clip=49, predicted="bull mastiff")


def squash(h: int, w: int) -> Geometry:
    return Geometry(source_h_px=h, source_w_px=w, model_h_px=56, model_w_px=56, scale_y=h / 56, scale_x=w / 56)


def planted(**changes: bool) -> FrameMap:
    mean = np.zeros((3, *GRID), np.float32)
    mean[0, 5, 3] = 2.0  # for, below
    mean[1, 1, 3] = 1.5  # speaks for others, above
    mean[2] = mean[0] - mean[1]
    state = {"is_seen": True, "is_reliable": True, **changes}
    return FrameMap(
        video_id="v",
        target_idx=0,
        frame_idx=0,
        outputs=OUTPUTS,
        mean=mean,
        var=np.full_like(mean, 1e-4),
        **state,
    )


def test_a_picture_shows_source_and_overlay_beside_each_other():
    rgb = np.full((140, 280, 3), 128, np.uint8)
    canvas, summary = compose_picture(rgb, planted(), squash(140, 280), CAPTION, RenderConfig())
    assert canvas.shape == (summary.height, summary.width, 3)
    source = canvas[: summary.height - 60, :280].astype(int)
    overlay = canvas[: summary.height - 60, summary.width - 280 :].astype(int)
    warm, cold = overlay[..., 0] - overlay[..., 2], overlay[..., 2] - overlay[..., 0]
    below, above = np.argwhere(warm > 100)[:, 0].mean(), np.argwhere(cold > 100)[:, 0].mean()
    assert below > above + 60
    assert np.ptp(source[30:120], axis=-1).max() == 0


def test_the_png_is_whole_and_read_back_the_same(tmp_path, shared_data):
    source = probe(str(shared_data / "images" / "catdog.png"))
    summary = write_picture(tmp_path / "out.png", source, planted(), squash(224, 224), CAPTION, RenderConfig())
    with Image.open(summary.path) as image:
        assert image.size == (summary.width, summary.height)
    assert [path.name for path in tmp_path.iterdir()] == ["out.png"]
    rgb = np.asarray(Image.open(shared_data / "images" / "catdog.png").convert("RGB"))
    canvas, _ = compose_picture(rgb, planted(), squash(224, 224), CAPTION, RenderConfig())
    np.testing.assert_array_equal(np.asarray(Image.open(summary.path)), canvas)


def test_one_pixel_and_panels_of_large_pictures_are_drawn(tmp_path):
    config = RenderConfig(side_by_side=True)
    tiny = render_picture(
        tmp_path / "a.png", np.zeros((1, 1, 3), np.uint8), planted(), squash(1, 1), CAPTION, RenderConfig()
    )
    assert tiny.zoom == 100
    assert tiny.width >= 200
    large = render_picture(
        tmp_path / "b.png", np.zeros((1536, 2048, 3), np.uint8), planted(), squash(1536, 2048), CAPTION, config
    )
    assert large.zoom < 1
    assert large.width < 3000


@pytest.mark.parametrize("state", ["is_seen", "is_reliable"])
def test_without_a_map_to_trust_there_are_no_colours(state):
    rgb = np.full((140, 280, 3), 128, np.uint8)
    canvas, _ = compose_picture(rgb, planted(**{state: False}), squash(140, 280), CAPTION, RenderConfig())
    picture = canvas[30:150, 286:].astype(int)
    assert np.ptp(picture, axis=-1).max() < 12


def test_the_scale_is_in_the_unit_shown_and_ignores_maps_that_cannot_be_trusted():
    assert choose_scale([planted()], 49) == pytest.approx(2.0 * 0.49, rel=0.15)
    assert choose_scale([planted()], 98) == pytest.approx(2 * choose_scale([planted()], 49))
    wild = planted(is_reliable=False)
    wild.mean[:] *= 100
    assert choose_scale([planted(), wild], 49) == choose_scale([planted()], 49)
    assert choose_scale([planted(is_seen=False)], 49) == 1.0


@pytest.mark.parametrize("width", [200, 240, 320, 426, 640, 1280, 1920, 3840])
def test_the_strip_fits_every_width_and_its_letters_grow(width):
    caption = Caption(target="a very long class name, " * 6, model="m" * 80, voxels_per_clip=1, predicted="p" * 60)
    strip = Strip(width, caption, has_profile=True)
    strip.prepare(0.123, 4.5)
    canvas = np.zeros((strip.height, width, 3), np.uint8)
    strip.draw(canvas)
    assert strip.height % 2 == 0
    assert strip.font_px >= 11
    assert strip.height < 13 * strip.font_px
    assert canvas.max() > 200
    assert (canvas[:, -1] < 60).all()  # no word is cut by the border


def test_numbers_and_times_read_as_people_write_them():
    assert [number(value) for value in (0.1234, 1.26, 12.4, 345.6)] == ["0.12", "1.3", "12", "346"]
    assert [clock(t) for t in (4.0, 59.2, 75.0, 3725.0)] == ["4 s", "59 s", "1:15", "1:02:05"]
    assert clock(3.26, 0.1) == "3.3 s"
    assert tick_step(20.0, 400, 30) == 5
    assert tick_step(7200.0, 400, 30) == 1200
