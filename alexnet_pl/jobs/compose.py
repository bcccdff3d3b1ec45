"""Compose configurations with Hydra: the schema, and sweeps as a group.

compose(["model=alexnet", "seed=2"])     a configuration, for commands and notebooks that do not train
to_config(composed)                      the same from what Hydra composed, for alexnet-train
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, get_type_hints

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from alexnet_pl.config.keys import is_key
from alexnet_pl.config.schema import Config, Trainer, from_dict
from alexnet_pl.errors import ConfigError
from alexnet_pl.files import ROOT
from alexnet_pl.jobs import resolvers  # noqa: F401  which OmegaConf needs to know
from alexnet_pl.jobs.mistakes import find_mistakes, lightning_mistake, quote_text, translated, unknown


def compose(overrides: Sequence[str]) -> Config:
    """Return the configuration of `alexnet-train OVERRIDES`, without the checks.

    Raises:
        ConfigError: a sentence for each override that is not understood, or `sweep=...` still stands for several runs.
    """
    overrides = [quote_text(word) for word in overrides]
    with _composing():
        if mistakes := find_mistakes(overrides):
            raise ConfigError(*(sentence for said in mistakes.values() for sentence in said))
        parameters = _sweep_parameters(overrides)
        if any(parameter.is_sweep_override() for parameter in parameters):
            raise ConfigError(
                f"{named_sweep(overrides)} is several configurations: to choose one, add {_first_values(parameters)}"
            )
        words = [str(parameter.input_line) for parameter in parameters]
        return to_config(hydra.compose("config", [*words, *overrides]))


@contextmanager
def _composing() -> Iterator[None]:
    """Initialise Hydra inside, and raise its errors as sentences."""
    with translated():
        register()
        with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            yield


def named_sweep(overrides: Sequence[str]) -> str:
    """Return the override `sweep=NAME` among others; empty if there is none."""
    return next((word for word in overrides if word.startswith("sweep=") and word != "sweep=null"), "")


def first_job(overrides: Sequence[str]) -> str:
    """Return the overrides that turn a named sweep into its first job, as one types them."""
    with _composing():
        return _first_values(_sweep_parameters(overrides))


def _sweep_parameters(overrides: Sequence[str]) -> list[Override]:
    """Return the parameters of a named sweep, except those that the command sets itself."""
    if not named_sweep(overrides):
        return []
    composed = hydra.compose("config", list(overrides), return_hydra_config=True)
    given = {word.partition("=")[0].lstrip("+") for word in overrides}
    lines = [f"{key}={value}" for key, value in (composed.hydra.sweeper.params or {}).items() if key not in given]
    return OverridesParser.create().parse_overrides(lines)


def _first_values(parameters: Sequence[Override]) -> str:
    words = []
    for parameter in parameters:
        swept = parameter.is_sweep_override()
        value = next(parameter.sweep_string_iterator()) if swept else parameter.get_value_element_as_str()
        words.append(f"{parameter.key_or_group}={value}")
    return " ".join(f"'{word}'" if re.search(r"[\[{ ]", word) else word for word in words)


def to_config(composed: DictConfig) -> Config:
    """Return what Hydra composed as dataclasses.

    Raises:
        ConfigError: unknown keys (also one added with +), a wrong type, or a missing value.
    """
    with translated():
        nodes = {str(key): composed[key] for key in composed if key != "hydra"}
        plain = {key: _plain(node) for key, node in nodes.items()}
        if unknown_keys := [key for key in _leaves(plain) if not is_key(key) and not key.startswith("trainer.")]:
            raise ConfigError(*map(unknown, unknown_keys))
        return from_dict(plain | {"trainer": _trainer(plain)})


def _plain(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=True, throw_on_missing=True) if OmegaConf.is_config(node) else node


def _trainer(plain: dict[Any, Any]) -> dict[str, Any]:
    """Return the trainer group; arguments that only Lightning knows move to `more`."""
    own = {field.name for field in fields(Trainer)}
    given = {str(key): value for key, value in plain["trainer"].items()}
    more = {key: value for key, value in given.items() if key not in own}
    if mistakes := list(filter(None, map(lightning_mistake, more, more.values()))):
        raise ConfigError(*mistakes)
    return {key: value for key, value in given.items() if key in own} | {"more": given.get("more", {}) | more}


def _leaves(node: Any, prefix: str = "") -> list[str]:
    if not isinstance(node, dict):
        return [prefix[:-1]]
    return [leaf for key, value in node.items() for leaf in _leaves(value, f"{prefix}{key}.")]


# ------------------------------------------------------------------------------------------------ what Hydra knows


def schema_node() -> DictConfig:
    """Return what Hydra composes against: the groups with their types.

    `trainer` holds only what is set there, so that a printed configuration stays short. `to_config` checks its names.
    The layer table checks the names in model.widths and similar keys.
    """
    kinds = get_type_hints(Config)
    node = OmegaConf.create(
        {
            field.name: OmegaConf.structured(kinds[field.name]) if is_dataclass(kinds[field.name]) else field.default
            for field in fields(Config)
        }
    )
    node.trainer = {}
    m = node.model
    for holder in (node.trainer, m.widths, m.order, m.std, m.bias, node.optim.layer_decay):
        OmegaConf.set_struct(holder, False)
    return node


@cache
def register() -> None:
    """Register the schema with Hydra, and the files of sweeps/ as a group, which is not on Hydra's search path."""
    known = ConfigStore.instance()
    known.store(name="schema", node=schema_node(), provider="schema.py")
    for file in sorted((ROOT / "sweeps").glob("*.yaml")):
        known.store(group="sweep", name=file.stem, node=OmegaConf.load(file), package="_global_", provider="sweeps")
