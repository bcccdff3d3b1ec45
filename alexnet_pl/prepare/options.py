"""The options of packing. This file imports no torch, so that the command shows a mistake at once."""

from __future__ import annotations

from dataclasses import dataclass, field

from alexnet_pl import cpu
from alexnet_pl.config.schema import LEAST_PIXELS, MOST_PIXELS
from alexnet_pl.errors import ConfigError


@dataclass
class Options:
    """The options of packing."""

    name: str | None = None
    """name of the dataset; None: that of its source"""
    size: int = 256
    """side of the squares in pixels"""
    resize: str = "centre"
    """how images become squares: a choice of `Squares`"""
    form: str = "auto"
    """raw, jpeg, or auto: the one that suits this machine"""
    quality: int = 90
    """quality of the JPEGs"""
    hold_out: float = 0.0
    """share of each class that becomes val, if the source has none"""
    max_skipped: float = 0.01
    """share of the files that may give no image"""
    workers: int = field(default_factory=cpu.count)
    """number of threads"""

    def check(self) -> None:
        """Raise ConfigError if an option makes no sense."""
        if not LEAST_PIXELS <= self.size <= MOST_PIXELS:
            raise ConfigError(
                f"--size {self.size} must lie between {LEAST_PIXELS} and {MOST_PIXELS} pixels (2012: 256)"
            )
        if not 1 <= self.quality <= 100:
            raise ConfigError(f"--quality {self.quality} must lie between 1 and 100")
        for flag, share in (("--hold-out", self.hold_out), ("--max-skipped", self.max_skipped)):
            if not 0 <= share < 1:
                raise ConfigError(f"{flag} {share} is a share: it must be at least 0 and below 1")
        if self.workers < 1:
            raise ConfigError(f"--workers {self.workers} must be at least 1")
