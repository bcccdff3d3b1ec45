"""The options of a prediction. This file imports no torch, so that the command shows a mistake at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from alexnet_pl.errors import ConfigError, UserError

SUFFIXES = (".png", ".svg", ".pdf")
"""Suffixes of figures"""


@dataclass
class Options:
    """The images to predict, and the files to write."""

    run: str
    """a run folder, a folder of one run, a checkpoint, or published weights"""
    images: list[str]
    """files, folders, patterns, or - for standard input"""
    mean: Path | None = None
    """the mean image of Caffe's weights"""
    views: int = 1
    """views of each image: 1 (the centre), or 10"""
    labels: Path | None = None
    """a CSV file of image,class"""
    neighbours: str | None = None
    """a folder, a pattern or a packed store to compare with"""
    csv: Path | None = None
    json: Path | None = None
    figure: Path | None = None

    @property
    def outputs(self) -> list[Path]:
        """Files to write."""
        return [path for path in (self.csv, self.json, self.figure) if path is not None]

    def check(self) -> None:
        """Raise UserError if a file cannot be written."""
        if self.figure and self.figure.suffix.lower() not in SUFFIXES:
            raise ConfigError(
                f"--figure {self.figure} must end with {', '.join(SUFFIXES)}: its name says what is written"
            )
        for path in self.outputs:
            if not path.name:
                raise ConfigError("--csv, --json and --figure take the name of a file, and one is empty")
            if not path.parent.is_dir():
                raise UserError(f"{path} cannot be written: there is no folder {path.parent}")
