"""A film begins long before its video has been read to the end."""

import threading
import time
from pathlib import Path

import av
import pytest
from small_runs import explain, write_scene

NUM_FRAMES, CLIP_LEN = 240, 4


def playable_frames(folder: Path) -> int:
    """Frames that a player shows of what lies in the folder now: finished segments, the one that grows, the film."""
    found = 0
    for path in sorted(path for path in folder.rglob("*") if path.suffix in (".mp4", ".tmp")):
        try:
            with av.open(str(path)) as container:
                found += sum(1 for _ in container.decode(video=0))
        except (av.FFmpegError, OSError, IndexError):
            continue  # not begun yet, or gone by now
    return found


@pytest.mark.slow
def test_the_film_plays_while_less_than_half_of_the_video_has_been_scored(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.mp4", NUM_FRAMES)
    run = tmp_path / "run"
    settings = {"box__sleep_s": "0.04", "render__look_ahead_s": 0.5}
    thread = threading.Thread(target=explain, args=(run, scene), kwargs=settings)
    thread.start()
    seen: list[tuple[int, int]] = []
    while thread.is_alive():
        scored = len(list((run / "journal").rglob("*.r0000.npz")))
        seen.append((playable_frames(run / "films"), scored))  # counted first: more may have been scored since
        time.sleep(0.1)
    thread.join()
    assert playable_frames(run / "films") == NUM_FRAMES
    num_clips = NUM_FRAMES // CLIP_LEN
    early = [frames for frames, scored in seen if scored < num_clips / 2]
    assert max(early) >= CLIP_LEN
