"""Download checkpoints from W&B: `wandb:ENTITY/PROJECT/NAME:ALIAS` becomes a folder like any other.

`logger.log_model` makes such artifacts: run folders with one checkpoint. An artifact of one .ckpt file works, too.
"""

from __future__ import annotations

import re
import shutil
import sys
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from alexnet_pl.errors import ConfigError
from alexnet_pl.runs import wandb_server
from alexnet_pl.runs.naming import safe_file_name

SCHEME = "wandb:"


def is_artifact(path: str | Path) -> bool:
    return str(path).startswith(SCHEME)


@cache
def fetch(address: str) -> Path:
    """Return the folder of an artifact, artifacts/ENTITY/PROJECT/NAME_VERSION. Download it if it is not there.

    Args:
        address: wandb:ENTITY/PROJECT/NAME:ALIAS; without an alias, `latest`.
    Raises:
        UserError: no address of this form, no key, no answer, no such artifact, or not one checkpoint in it.
    """
    name = address.removeprefix(SCHEME)
    if not re.fullmatch(r"[^/:\s]+/[^/:\s]+/[^/:\s]+(:[^/:\s]+)?", name) or ".." in name.split("/"):
        raise ConfigError(f"{address} is not {SCHEME}ENTITY/PROJECT/NAME:ALIAS, as in wandb:ada/alexnet_pl/lrn-a:best")
    wandb_server.require(address)
    import wandb

    with wandb_server.translated(f"W&B does not give {address}"):
        artifact = wandb.Api(timeout=wandb_server.SECONDS).artifact(name if ":" in name else f"{name}:latest")
        held = sorted(path for path in artifact.manifest.entries if path.endswith(".ckpt"))
        folder = Path("artifacts", *name.split("/")[:2], safe_file_name(artifact.name))
        if len(held) == 1 and not folder.is_dir():
            _download(artifact, folder)
    if len(held) != 1:
        found = f"{len(held)} checkpoints ({', '.join(held)})" if held else "no checkpoint (.ckpt)"
        raise ConfigError(f"{address} holds {found}, and must hold one: logger.log_model makes such artifacts")
    return folder


def _download(artifact: Any, folder: Path) -> None:
    """Download an artifact into a folder, which appears with all its files or not at all."""
    print(f"downloading {artifact.name} of W&B ({artifact.size / 1e6:.0f} MB) into {folder}", file=sys.stderr)
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(mkdtemp(dir=folder.parent))
    try:
        artifact.download(str(part), skip_cache=True)
        part.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process was faster
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
