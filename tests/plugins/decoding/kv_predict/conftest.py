"""Makes `tiny_models.py` importable, and trains the base that several tests share."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from tiny_models import trained_base


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 4 layers that has learned to say who has what."""
    return trained_base(tmp_path_factory.mktemp("kv-predict") / "base")
