"""Everything Hydra: the schema, the sweeps as a group, and the resolvers that conf/ uses."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from alexnet_pl import ROOT
from alexnet_pl.config import keys
from alexnet_pl.config.schema import schema
from alexnet_pl.data import store
from alexnet_pl.errors import ConfigError
from alexnet_pl.runs.naming import job_folder_name


# ------------------------------------------------------------------------------------------------ resolvers
def lookup(choice: str, table: dict[str, Any]) -> Any:
    """`${lookup:${model.activation},{relu:0.002,tanh:0.008}}`: the value that belongs to a choice."""
    name = choice.name if isinstance(choice, Enum) else str(choice)
    values = {str(key): value for key, value in table.items()}
    if name not in values:
        raise ConfigError(f"no value is given for {name}, only for {', '.join(values)}: set the key itself")
    return values[name]


def packed(root: str | None, what: str, default: Any) -> Any:
    """`${packed:${data.root},num_classes,1000}`: what the packed store in a folder says; the default where none is."""
    found = store.read(Path(root).expanduser()) if root else None
    if not found:
        return default
    known = {"name": found.plan.name, "num_classes": len(found.classes), "size": found.plan.size}
    return (known | {"identity": found.plan.identity})[what]


def _choices() -> str:
    """The groups and their choices, for --help."""
    files = [*(ROOT / "conf").glob("*/*.yaml"), *(ROOT / "sweeps").glob("*.yaml")]
    groups: dict[str, list[str]] = {}
    for file in sorted(files):
        groups.setdefault("sweep" if file.parent.name == "sweeps" else file.parent.name, []).append(file.stem)
    return "\n".join(f"{group:11} {', '.join(names)}" for group, names in groups.items())


OmegaConf.register_new_resolver("folder_name", job_folder_name, replace=True)
OmegaConf.register_new_resolver("describe_keys", keys.help_text, replace=True)
OmegaConf.register_new_resolver("describe_groups", lambda: _choices(), replace=True)
ConfigStore.instance().store(name="schema", node=schema(), provider="alexnet_pl/config/schema.py")
for file in sorted((ROOT / "sweeps").glob("*.yaml")):  # a flat folder as a config group, without a search path
    ConfigStore.instance().store(
        group="sweep", name=file.stem, node=OmegaConf.load(file), package="_global_", provider=f"sweeps/{file.name}"
    )


OmegaConf.register_new_resolver("lookup", lookup, replace=True)
OmegaConf.register_new_resolver("packed", packed, replace=True)
