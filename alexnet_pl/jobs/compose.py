"""Compose configurations with Hydra: the schema, sweeps as a group, and its errors as sentences.

compose(["model=alexnet", "seed=2"])     a configuration for the commands and notebooks that do not train
to_config(what Hydra composed)           the same for the one that does
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, get_args, get_type_hints

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    ValidationError,
)

from alexnet_pl.config.keys import is_key, key_types, type_words
from alexnet_pl.config.schema import Config, Trainer, from_dict
from alexnet_pl.config.suggestions import suggest
from alexnet_pl.errors import ConfigError, UserError, find_user_error
from alexnet_pl.files import ROOT
from alexnet_pl.jobs import resolvers  # noqa: F401  which OmegaConf needs to know

OURS = ("logger", "callbacks", "plugins", "overfit_batches", "enable_model_summary", "default_root_dir", "barebones")
"""Arguments of Lightning's Trainer that a run sets itself, or that would not do here what they say"""


def compose(overrides: Sequence[str]) -> Config:
    """Return the configuration of `alexnet-train OVERRIDES`, not checked yet.

    Raises:
        ConfigError: a sentence for each override that is not understood, or `sweep=...` stands for several runs still.
    """
    if mistakes := find_mistakes(overrides):
        raise ConfigError(*mistakes.values())
    with _composing():
        parameters = _sweep_parameters(overrides)
        if any(parameter.is_sweep_override() for parameter in parameters):
            raise ConfigError(
                f"{named_sweep(overrides)} is several configurations: add what tells one of them from the others, "
                f"{_first_values(parameters)}"
            )
        words = [str(parameter.input_line) for parameter in parameters]
        return to_config(hydra.compose("config", [*words, *overrides]))


@contextmanager
def _composing() -> Iterator[None]:
    """Have Hydra ready inside, and its errors as sentences."""
    register()
    with translated(), hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        yield


def named_sweep(overrides: Sequence[str]) -> str:
    """Return the override `sweep=NAME` among others; empty where there is none."""
    return next((word for word in overrides if word.startswith("sweep=") and word != "sweep=null"), "")


def first_job(overrides: Sequence[str]) -> str:
    """Return the overrides of a named sweep's first job that are not given, as one types them."""
    with _composing():
        return _first_values(_sweep_parameters(overrides))


def _sweep_parameters(overrides: Sequence[str]) -> list[Override]:
    """Return the parameters of a named sweep that are not given."""
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
    """Return the trainer group with the arguments that are Lightning's alone under `more`."""
    own = {field.name for field in fields(Trainer)}
    given = {str(key): value for key, value in plain["trainer"].items()}
    more = {key: value for key, value in given.items() if key not in own}
    if mistakes := list(filter(None, map(lightning_mistake, more))):
        raise ConfigError(*mistakes)
    return {key: value for key, value in given.items() if key in own} | {"more": given.get("more", {}) | more}


def lightning_mistake(key: str) -> str | None:
    """Return why a key cannot be given to Lightning's Trainer; None where it can. Imports Lightning."""
    own = [f"trainer.{field.name}" for field in fields(Trainer) if field.name != "more"]
    if key == "overfit_batches":
        return f"trainer.{key} would not train as it says: use trainer.limit_train_batches above 0"
    if key in OURS:
        return f"trainer.{key} is set by the run itself: leave it out"
    from pytorch_lightning import Trainer as Lightning

    if key in inspect.signature(Lightning).parameters:
        return None
    return f"trainer.{key} is not a key of the configuration: {suggest(f'trainer.{key}', own)}"


def _leaves(node: Any, prefix: str = "") -> list[str]:
    if not isinstance(node, dict):
        return [prefix[:-1]]
    return [leaf for key, value in node.items() for leaf in _leaves(value, f"{prefix}{key}.")]


# ------------------------------------------------------------------------------------------------ mistakes


def find_mistakes(overrides: Sequence[str]) -> dict[str, str]:
    """Return a sentence for each override that names no key or has a value of another type: {override: sentence}.

    Hydra itself stops at the first. Choices of groups are left to it.
    """
    mistakes: dict[str, str] = {}
    parser, known = OverridesParser.create(), OmegaConf.structured(Config)
    for word in overrides:
        try:
            (override,) = parser.parse_overrides([word])
        except OverrideParseException:
            mistakes[word] = f"{word} is not understood: write KEY=VALUE, with quotes around what has spaces or braces"
            continue
        key = override.key_or_group
        if key.startswith("hydra") or (ROOT / "conf" / key).is_dir() or key in ("sweep", *_groups()):
            continue
        if key.startswith("trainer.") and not is_key(key):
            if sentence := lightning_mistake(key.removeprefix("trainer.")):
                mistakes[word] = sentence
        elif not is_key(key):
            mistakes[word] = unknown(key)
        elif not override.is_sweep_override() and not override.is_delete():
            try:
                OmegaConf.update(known, key, override.value(), merge=True)
            except OmegaConfBaseException as error:
                mistakes[word] = explain(error)
    return mistakes


def _groups() -> list[str]:
    return [field.name for field in fields(Config) if is_dataclass(get_type_hints(Config)[field.name])]


def unknown(key: str) -> str:
    """Return the sentence about a key that does not exist."""
    group, dot, _ = key.partition(".")
    groups = list(get_type_hints(Config))
    keys = [known for known in key_types() if "." in known or not dot]
    near = suggest(key, keys) if group in groups else suggest(group, groups)
    return f"{key} is not a key of the configuration: {near}"


def explain(error: OmegaConfBaseException) -> str:
    """Return OmegaConf's several lines about one key as one sentence."""
    key = error.full_key or str(error.key or "")
    kind = key_types().get(key) or key_types().get(key.rpartition(".")[0])  # or an entry of a dict
    choices = next((k for k in (kind, *get_args(kind)) if isinstance(k, type) and issubclass(k, Enum)), None)
    reason = re.sub(r"^ConfigError raised while resolving interpolation: ", "", str(error.msg or error).split("\n")[0])
    quoted = re.search(r"^Value (\S+) \(|'(.*?)'", reason)
    value = quoted[quoted.lastindex or 0].strip("'") if quoted else ""
    if value.startswith("${oc.env:"):
        variable = value.removeprefix("${oc.env:").split(",")[0].rstrip("}")
        value = f"{os.environ.get(variable, '')} (from the environment variable {variable})"
    if isinstance(error, MissingMandatoryValue) or "issing mandatory value" in reason:
        return f"{key} has no value: give one with {key}=..."
    if choices and value:
        return f"{key}={value} is not a choice: {suggest(value, list(choices.__members__))}"
    if "is not a ListConfig" in reason:
        return f"{key} takes a list: {key}=[...,...], or {key}=[] for none"
    if "could not be converted to" in reason:
        return f"{key}={value} is not of type {reason.split()[-1].lower()}"
    if isinstance(error, ConfigKeyError | ConfigAttributeError) and key:
        return unknown(key)
    if isinstance(error, ValidationError) or "Cannot assign" in reason:
        return f"{key} takes {type_words(kind)}: {reason}"
    return f"{key}: {reason}" if key and key not in reason else reason


def user_error(error: BaseException | None) -> UserError | None:
    """Return the user's mistake behind an error of Hydra, OmegaConf or the file system; None for a bug."""
    while error is not None:
        if isinstance(error, MissingConfigException) and error.options is not None:  # an OSError as well
            group, _, choice = str(error.missing_cfg_file).rpartition("/")
            return ConfigError(f"{group}={choice} is not a choice: {suggest(choice, list(error.options))}")
        if isinstance(error, UserError | OSError):
            return find_user_error(error)
        if isinstance(error, OmegaConfBaseException):
            return error.__cause__ if isinstance(error.__cause__, ConfigError) else ConfigError(explain(error))
        if isinstance(error, HydraException) and error.__cause__ is None:
            return ConfigError(" ".join(str(error).split()))
        error = error.__cause__
    return None


@contextmanager
def translated() -> Iterator[None]:
    """Raise the errors of Hydra and OmegaConf inside as `UserError`s of one sentence."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        if (reason := user_error(error)) is None:
            raise
        raise reason from error


# ------------------------------------------------------------------------------------------------ what Hydra knows


def schema_node() -> DictConfig:
    """Return what Hydra composes against: the groups with their types.

    `trainer` holds only what is set there, so that a printed configuration stays short. `to_config` knows its names, as
    the layer table knows those that model.widths and its like may hold.
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
    """Tell Hydra of the schema, and of sweeps/ as a group: a flat folder, without a search path."""
    known = ConfigStore.instance()
    known.store(name="schema", node=schema_node(), provider="schema.py")
    for file in sorted((ROOT / "sweeps").glob("*.yaml")):
        known.store(group="sweep", name=file.stem, node=OmegaConf.load(file), package="_global_", provider="sweeps")
