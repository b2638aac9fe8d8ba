"""Initial maps that refinement starts from (`--prior`): a RISE map of the clip's own first masks, Captum's, a file, or
the map of the clip before (`heritage.py`).

A prior has any scale and may be wrong: the default method fits the factor it enters with and can refuse it
(`directions.py`), BOREx takes it as the mean of its Gaussian process, as published (`borex.py`).
"""

from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from stages.errors import ConfigError
from stages.heritage import PREVIOUS
from stages.masks import Grid
from stages.questions import captum_method, is_captum
from stages.regrid import regrid

FORMS = "none, rise, previous, FILE.npy, FILE.npz or captum:NAME[@LAYER]"
FILE_SUFFIXES = (".npy", ".npz")

# Masks that a RISE prior is made of, as published with BOREx; never more than half of the budget.
RISE_MASKS = 100
RISE_FAMILY = "rise-sparse"


def is_file(prior: str) -> bool:
    """Whether a prior is the path of an array."""
    return prior.lower().endswith(FILE_SUFFIXES) and not is_captum(prior)


def expect_known(prior: str) -> None:
    """Raise ValueError when `prior` has none of the known forms."""
    if is_captum(prior):
        captum_method(prior)
    elif prior not in ("none", "rise", PREVIOUS) and not is_file(prior):
        raise ValueError(f"{prior!r} is no prior; use {FORMS}")


@lru_cache(maxsize=8)
def file_prior(path: str, grid: Grid) -> Float32[np.ndarray, "gt gh gw"]:
    """The map in a file, (T, H, W) or (H, W) of any size, brought to the grid; the same for every clip.

    Of an .npz the array named `prior`, or its only one. Raises ConfigError for a file that holds no such map.
    """
    found = np.asarray(_read(path))
    if found.ndim == 2:
        found = found[None]
    if found.ndim != 3 or found.size == 0 or not np.issubdtype(found.dtype, np.number) or np.iscomplexobj(found):
        raise ConfigError(f"prior {path}", f"is {found.dtype} {found.shape}", "store real numbers, T x H x W or H x W")
    if not np.isfinite(found).all():
        raise ConfigError(f"prior {path}", "holds values that are not finite", "replace them, for example by 0")
    return regrid(found.astype(np.float64), grid).astype(np.float32)


def _read(path: str) -> np.ndarray:
    try:
        loaded = np.load(Path(path).expanduser(), allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            names = loaded.files
            if "prior" not in names and len(names) != 1:
                raise ConfigError(f"prior {path}", f"holds the arrays {', '.join(names)}", "name one of them prior")
            return np.asarray(loaded["prior" if "prior" in names else names[0]])
    except (OSError, ValueError, EOFError) as error:
        raise ConfigError(f"prior {path}", f"is not readable ({error})", "give a file written by numpy.save") from error
