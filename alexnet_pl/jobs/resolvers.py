"""Register the functions that conf/ and sweeps/ call, such as `${lookup:...}`, when this file is imported."""

from __future__ import annotations

from enum import Enum
from typing import Any

from omegaconf import OmegaConf

from alexnet_pl.data import store
from alexnet_pl.errors import ConfigError
from alexnet_pl.files import expand
from alexnet_pl.runs.naming import job_folder_name, run_group


def lookup(choice: str, table: dict[str, Any]) -> Any:
    """Return the value for a choice, or that of `else`: `${lookup:${model.activation},{relu:0.002,else:0.008}}`."""
    name = choice.name if isinstance(choice, Enum) else str(choice)
    values = {str(key): value for key, value in table.items()}
    if name not in values and "else" not in values:
        raise ConfigError(f"no value is given for {name}, only for {', '.join(values)}: set the key itself")
    return values.get(name, values.get("else"))


def packed(root: str | None, what: str, default: Any) -> Any:
    """Return a value of the packed dataset in a folder; without one, the default: `${packed:${data.root},size,256}`."""
    found = store.read(expand(root)) if root else None
    if not found:
        return default
    known = {"name": found.plan.name, "num_classes": len(found.classes), "size": found.plan.size}
    return (known | {"identity": found.plan.identity})[what]


OmegaConf.register_new_resolver("lookup", lookup, replace=True)
OmegaConf.register_new_resolver("packed", packed, replace=True)
OmegaConf.register_new_resolver("folder_name", job_folder_name, replace=True)
OmegaConf.register_new_resolver("run_group", run_group, replace=True)
