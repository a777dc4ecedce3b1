"""What all contract tests share."""

from __future__ import annotations

import pytest

from plugins.polling import capture


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look that found nothing is told at once, so that nobody waits a second for the end of what there is."""
    monkeypatch.setattr(capture, "KEEP_ALIVE_SECONDS", 0.0)
