import numpy as np

from stages.colours import F_NTC, F_TC, FOR
from stages.timeline import PLOT_BACKGROUND, Profile, draw_areas, draw_playhead, draw_time_axis

ONE = np.ones(4)


def profile(**changes: np.ndarray) -> Profile:
    """Four frames of one second: two for, one of F-TC, one of F-NTC in each."""
    parts = {"support": 2 * ONE, "f_tc": ONE, "f_ntc": ONE, "is_seen": ONE > 0, "is_reliable": ONE > 0, **changes}
    return Profile(pts_s=np.arange(4.0), end_s=4.0, **parts)


def plot(drawn: Profile, span_s: tuple[float, float] = (0.0, 4.0), full: float = 4.0) -> np.ndarray:
    canvas = np.zeros((40, 80, 3), np.uint8)
    draw_areas(canvas, drawn, span_s, full)
    return canvas


def share(canvas: np.ndarray, colour: tuple[int, int, int]) -> float:
    return float((canvas == colour).all(-1).mean())


def test_areas_are_as_high_as_the_evidence_and_stand_on_their_side():
    canvas = plot(profile())
    assert (canvas[11:18] == FOR).all()
    assert (canvas[22:25] == F_TC).all()
    assert (canvas[26:30] == F_NTC).all()
    assert (canvas[:9] == PLOT_BACKGROUND).all()
    assert (canvas[31:] == PLOT_BACKGROUND).all()


def test_twice_the_evidence_is_twice_as_high_and_more_than_fits_is_cut():
    small, large = (share(plot(profile(support=k * ONE)), FOR) for k in (1, 2))
    assert large > 1.7 * small
    assert share(plot(profile(support=99 * ONE)), FOR) < 0.5


def test_unreliable_frames_are_grey_and_unseen_or_unknown_ones_empty():
    middle = np.array([True, False, True, True])
    grey = plot(profile(is_reliable=middle))
    assert np.ptp(grey[:18, 20:40], axis=-1).max() == 0
    assert share(grey[:18, :20], FOR) > 0.3
    empty = plot(profile(is_seen=middle))
    assert empty[:18, 20:40].max() < PLOT_BACKGROUND
    later = plot(profile(), (0.0, 8.0))
    assert later[:18, 41:].max() < PLOT_BACKGROUND
    assert share(later[:18, :40], FOR) > 0.3


def test_time_stamps_not_frame_numbers_place_the_frames():
    uneven = Profile(
        pts_s=np.array([0.0, 3.0]),
        support=np.array([1.0, 0.0]),
        f_tc=np.zeros(2),
        f_ntc=np.zeros(2),
        is_seen=np.ones(2, bool),
        is_reliable=np.ones(2, bool),
        end_s=4.0,
    )
    columns = (plot(uneven, full=1.0)[:18] == FOR).all(-1).any(0)
    assert columns.sum() == 60


def test_playhead_and_ticks_stand_at_their_time():
    canvas = np.zeros((40, 80, 3), np.uint8)
    draw_playhead(canvas, 60.0, 11)
    assert int(np.argmax(canvas[20, :, 0])) in (59, 60)
    for beyond in (-50.0, 500.0):
        draw_playhead(canvas, beyond, 11)
    axis = np.zeros((16, 400, 3), np.uint8)
    draw_time_axis(axis, (0.0, 20.0), 11, 0, 400)
    ticks = np.flatnonzero(axis[0, :, 0])
    assert {int(tick) // 100 for tick in ticks} == {0, 1, 2, 3}
