"""log.jsonl says what happened to which run, video and clip, in keys that can be searched."""

import json
import logging

from small_runs import explain, write_scene

from pipeline.logs import LogTray, log_again, log_trace, logging_to


def lines_of(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_run_says_what_became_of_every_video_and_why_a_clip_failed(tmp_path):
    scene = write_scene(tmp_path / "scene.mp4", 12, black=range(4, 8))
    run = explain(tmp_path / "run", scene, box__fault="black", engine__retries=1)
    lines = lines_of(run.path)
    run_id = json.loads((run.path / "manifest.json").read_text())["run_id"]
    assert [line["message"].split()[1] for line in lines if line.get("id_run") == run_id] == ["begins", "ends"]
    of_video = [line["message"] for line in lines if line.get("id_video") == "scene"]
    assert [any(word in message for message in of_video) for word in ("opened", "targets=", "failed", "done")] == [
        True
    ] * 4
    of_clip = [line for line in lines if line.get("id_clip") == "scene#1"]
    assert {line.get("id_stage") for line in of_clip} == {"score"}
    assert any("Traceback" in line["message"] and "black frames" in line["message"] for line in of_clip)
    assert {"at", "level", "logger", "message"} <= lines[0].keys()


def test_what_a_far_worker_said_is_told_again_with_its_place_and_time(tmp_path):
    tray = LogTray()
    try:
        logging.getLogger("pipeline.far").info("stage=%s clip=%s is late", "decode", "a#3")
        said = tray.fetch()
    finally:
        for name in ("pipeline", "stages"):
            logging.getLogger(name).removeHandler(tray)
    with logging_to(tmp_path, is_quiet=True):
        log_again(said, "worker=decode-2")
    (line,) = lines_of(tmp_path)
    assert (line["id_worker"], line["id_stage"], line["id_clip"]) == ("decode-2", "decode", "a#3")
    assert line["level"] == "info"
    assert tray.fetch() == ()


def test_words_of_a_trace_are_no_ids(tmp_path):
    with logging_to(tmp_path, is_quiet=True):
        log_trace("stage=refine clip=a#3", "Traceback\n    explain(turned, clip=clip, masks=masks)")
        log_trace("stage=refine clip=a#4", "")
    (line,) = lines_of(tmp_path)
    assert (line["id_stage"], line["id_clip"]) == ("refine", "a#3")
    assert "id_masks" not in line
