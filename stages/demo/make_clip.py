"""Write the shipped clip from its spec: `python -m stages.demo.make_clip`."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from jaxtyping import Float32

from stages.demo.clips import DEMO_VIDEO, demo_clip, demo_scene

AUDIO_RATE_HZ = 44_100
AUDIO_BLOCK = 1024
# The pad: one soft chord every 2.5 s (C, A minor, F, G), as semitones from A4 = 440 Hz.
CHORDS = ((-21, -9, -5, -2), (-24, -12, -9, -5), (-28, -16, -12, -9), (-26, -14, -10, -7))


def tone_pad(duration_s: float) -> Float32[np.ndarray, " n"]:
    """A quiet chord progression: sines with one soft overtone, slow attack and release, peak about 0.1."""
    times_s = np.arange(round(duration_s * AUDIO_RATE_HZ)) / AUDIO_RATE_HZ
    span_s = duration_s / len(CHORDS)
    sound = np.zeros_like(times_s)
    for idx, chord in enumerate(CHORDS):
        inside = (times_s - idx * span_s) / span_s
        envelope = np.square(np.sin(np.pi * np.clip((inside + 0.15) / 1.3, 0, 1)))
        for semitone in chord:
            turns = 2 * np.pi * 440 * 2 ** (semitone / 12) * times_s
            sound += envelope * (np.sin(turns) + 0.25 * np.sin(2 * turns + 0.3) + 0.5 * np.sin(turns * 1.003))
    edge = np.clip(np.minimum(times_s, duration_s - times_s) / 0.4, 0, 1)
    sound *= edge
    pad: np.ndarray = 0.1 * sound / np.abs(sound).max()
    return pad.astype(np.float32)


def write_demo_clip(path: Path = DEMO_VIDEO) -> None:
    """Encode the scene as H.264 (BT.709, limited range) with a mono AAC track."""
    spec, frames = demo_clip(), demo_scene().frames
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as output:
        video = output.add_stream("libx264", rate=Fraction(spec.fps).limit_denominator(1000))
        video.width, video.height, video.pix_fmt = spec.width, spec.height, "yuv420p"
        video.codec_context.options = {"crf": "23", "preset": "slow", "tune": "animation", "threads": "1"}
        video.codec_context.color_range = 1
        video.codec_context.colorspace = video.codec_context.color_primaries = video.codec_context.color_trc = 1
        audio = output.add_stream("aac", rate=AUDIO_RATE_HZ, layout="mono")
        audio.codec_context.bit_rate = 48_000
        for pixels in frames:
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
            output.mux(video.encode(frame))
        output.mux(video.encode())
        sound = tone_pad(spec.num_frames / spec.fps)
        for start in range(0, len(sound), AUDIO_BLOCK):
            block = av.AudioFrame.from_ndarray(sound[None, start : start + AUDIO_BLOCK], format="fltp", layout="mono")
            block.sample_rate, block.pts, block.time_base = AUDIO_RATE_HZ, start, Fraction(1, AUDIO_RATE_HZ)
            output.mux(audio.encode(block))
        output.mux(audio.encode())


if __name__ == "__main__":
    write_demo_clip()
    print(f"saved={DEMO_VIDEO} bytes={DEMO_VIDEO.stat().st_size}")
