"""Lightning without the libraries that its metrics would bring along."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

UNUSED = {"scipy", "torchvision", "matplotlib"}


@contextmanager
def imports() -> Iterator[None]:
    """While Lightning is imported in here, torchmetrics does not find what it needs only for metrics of other fields.

    It comes with Lightning and imports these libraries if they are installed, which takes a fifth of a job's start
    (`bench/start.py`). They can be imported later as ever; but torchmetrics' own plots and its metrics of detection do
    not work in such a process.
    """
    from lightning_utilities.core import imports as asks

    installed, met = asks.package_available, asks.RequirementCache.__bool__
    asks.package_available = lambda package_name: package_name not in UNUSED and installed(package_name)  # type: ignore[assignment]
    asks.RequirementCache.__bool__ = lambda self: self.requirement not in UNUSED and met(self)  # type: ignore[method-assign]
    try:
        yield
    finally:
        asks.package_available = installed
        asks.RequirementCache.__bool__ = met  # type: ignore[method-assign]
