"""Seeds as functions of the work: a retry, a resume or a second worker draws the same numbers."""

from hashlib import blake2b

import numpy as np

from stages.records import ClipId


def clip_rng(run_seed: int, clip_id: ClipId, *, round_idx: int) -> np.random.Generator:
    """The generator that belongs to one round of one clip, whoever computes it and whenever."""
    key = f"{clip_id.video_id}/{clip_id.clip_idx}/{round_idx}".encode()
    return np.random.default_rng([run_seed, int.from_bytes(blake2b(key, digest_size=8).digest(), "big")])
