"""Shared fixtures: where the real models and clips lie, and quiet, bounded torch."""

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(min(2, os.cpu_count() or 1))

DATA_VARIABLE = "HEATREEL_TEST_DATA"
DEFAULT_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real models, clips, pictures and masks; tests that need it skip where it is missing."""
    folder = Path(os.environ.get(DATA_VARIABLE, DEFAULT_DATA))
    if not (folder / "README.md").is_file():
        pytest.skip(f"no real models and clips in {folder}; set {DATA_VARIABLE} to the folder that holds them")
    return folder
