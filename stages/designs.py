"""The factorised designs of a clip's masks: one for every prefix of a bank, shared by all its clips; one for a clip.

In: the evidence of a clip, and which of its masks count. Kept: the last ten of banks, the last two of clips.
"""

from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float64

from stages.gp import Design
from stages.masks import Grid, grids_of
from stages.records import BankSpec, ClipId, Evidence, MaskBatch


def rows_of(evidence: Evidence) -> Float64[np.ndarray, "n g"]:
    """All masks of a clip as rows over the grid, values in [0, 1]."""
    return np.concatenate([_as_rows(grids_of(masks)) for masks in evidence.masks])


def design_of(evidence: Evidence, asked: Bool[np.ndarray, " n"]) -> Design:
    """The factorised design of the masks `asked`; shared between clips when they come from one bank alone."""
    ends = np.cumsum([len(masks) for masks in evidence.masks])[:-1]
    used = [found.any() for found in np.split(asked, ends)]
    specs = {masks.bank for masks, is_used in zip(evidence.masks, used, strict=True) if is_used}
    spec = next(iter(specs))
    if len(specs) == 1 and spec is not None:
        ids = np.concatenate([masks.ids for masks in evidence.masks])[asked]
        return bank_design(spec, ids.astype(np.int64).tobytes())
    return Design(rows_of(evidence)[asked], grid_of(evidence))


def clip_design(evidence: Evidence, asked: Bool[np.ndarray, " n"]) -> Design:
    """`design_of` with the kernels on the clip's own content, where it has any."""
    design = design_of(evidence, asked)
    if evidence.content is None or not evidence.content.any():
        return design
    return content_design(design, evidence.content.shape, evidence.content.tobytes())


def grid_of(evidence: Evidence) -> Grid:
    """The voxel grid that a clip's masks live on."""
    first = evidence.masks[0]
    if first.bank is not None:
        return first.bank.grid
    t, h, w = grids_of(first).shape[1:]
    return t, h, w


# A bank of 1,024 that is asked in parts is looked at after nine prefixes (`parts.py`).
@lru_cache(maxsize=10)
def bank_design(spec: BankSpec, asked: bytes) -> Design:
    """The design of a bank's rows `asked` (int64 row numbers as bytes), computed once per process."""
    ids = np.frombuffer(asked, np.int64)
    masks = MaskBatch(clip_id=ClipId("bank", 0), round_idx=0, ids=ids, bank=spec)
    return Design(_as_rows(grids_of(masks)), spec.grid)


@lru_cache(maxsize=2)
def content_design(design: Design, shape: Grid, content: bytes) -> Design:
    """A design with the kernels on one clip's content; all targets of a clip share it."""
    return design.with_content(np.frombuffer(content, np.uint8).reshape(shape))


def _as_rows(grids: np.ndarray) -> Float64[np.ndarray, "n g"]:
    return np.asarray(grids.reshape(len(grids), -1) / 255.0)
