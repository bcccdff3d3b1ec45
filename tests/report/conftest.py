"""What the tests of reports share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from alexnet_pl.runs import provenance


@pytest.fixture(autouse=True, scope="module")
def _checkout() -> Iterator[None]:
    """Runs start from a known commit, and without asking git each time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(provenance, "git_state", lambda: {"commit": "0123456789abcdef", "dirty": False})
        yield
