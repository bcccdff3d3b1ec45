"""Find mistakes in overrides, and turn errors of Hydra, OmegaConf and YAML into one sentence each."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override, Quote, QuotedString, Sweep
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
from alexnet_pl.config.schema import Config, Trainer
from alexnet_pl.config.suggestions import suggest
from alexnet_pl.errors import ConfigError, UserError, find_user_error
from alexnet_pl.files import ROOT
from alexnet_pl.jobs import config_files

OURS = ("logger", "callbacks", "plugins", "overfit_batches", "enable_model_summary", "default_root_dir", "barebones")
"""Arguments of Lightning's Trainer that a run sets itself, or that would not work here"""
OF_HYDRA = ("hydra", "hydra.sweeper", "hydra.sweeper.params", "hydra.launcher", "hydra/sweeper")
"""Parts of Hydra's configuration that the command line cannot change"""
FOLDERS = (ROOT / "conf",)
"""Folders with the files of groups, besides that of --config-dir"""


# ------------------------------------------------------------------------------------------------ overrides
def find_mistakes(
    overrides: Sequence[str], several: bool = False, folders: Sequence[Path] = FOLDERS
) -> dict[str, list[str]]:
    """Return the mistakes of each override: no such key or choice, another type, a damaged file: {override: [...]}.

    Hydra itself stops at the first.

    Args:
        several: whether the overrides are those of a sweep, and may list several values.
        folders: folders with the files of groups.
    """
    mistakes: dict[str, list[str]] = {}
    parser, known = OverridesParser.create(), OmegaConf.structured(Config)
    for word in overrides:
        try:
            (override,) = parser.parse_overrides([word])
            if not override.key_or_group:
                raise OverrideParseException(word, "no key")
        except OverrideParseException:
            said = [f"{word} is not understood: write KEY=VALUE, with quotes around what has spaces or braces"]
        else:
            said = list(_override_mistakes(override, known, folders))
            if not said and not several and override.is_sweep_override():
                said = [f"{word} is several values: write [...] around a list; a sweep of runs is alexnet-train -m"]
        if said:
            mistakes[word] = said
    return mistakes


def _override_mistakes(override: Override, known: DictConfig, folders: Sequence[Path]) -> Iterator[str]:
    key, value = override.key_or_group, override.value()
    groups = {"sweep", *_groups(), *(path.name for folder in folders for path in folder.iterdir() if path.is_dir())}
    if key in OF_HYDRA or key.startswith("hydra.callbacks.checks"):
        yield f"{override.input_line} would change the parts of Hydra that check and start the runs: leave it out"
        return
    if key == "hydra.job.env_copy" and isinstance(value, list):
        yield from (f"{key} names {name}, which is not set" for name in value if str(name) not in os.environ)
    if key.startswith("hydra.") or (override.is_delete() and (value is None or isinstance(value, str))):
        return  # Hydra's own to judge
    if key.partition("/")[0] in ("hydra", *groups):
        for choice in _values(value):
            yield from _choice_mistakes(key, choice, known, folders)
    elif override.is_sweep_override():
        yield from () if is_key(key) or key.startswith("trainer.") else (unknown(key),)
    else:
        yield from filter(None, (key_mistake(key, value, known),))


def _values(value: Any) -> list[Any]:
    """Return the values of a sweep over choices, or the only one; none for glob(), which Hydra expands."""
    if isinstance(value, ChoiceSweep):
        return [element.text if isinstance(element, QuotedString) else element for element in value.list]
    return [] if isinstance(value, Glob) else [value]


def _choice_mistakes(group: str, choice: Any, known: DictConfig, folders: Sequence[Path]) -> Iterator[str]:
    """Yield the mistakes in the choice of a group, and in its file."""
    names = choice if isinstance(choice, list) else [choice]
    folders = [ROOT / "sweeps"] if group == "sweep" else [folder / group for folder in folders]
    if not names or not all(isinstance(name, str) and name and "${" not in name for name in names):
        there = sorted({file.stem for folder in folders for file in folder.glob("*.yaml")})
        near = ("choose from " + ", ".join(there)) if there else "give its name"
        shown = "a range" if isinstance(choice, Sweep) else {"None": "null", "": "''"}.get(str(choice), choice)
        yield f"{group}={shown} is not a choice: {near}"
        return
    for file in (folder / f"{name}.yaml" for folder in folders for name in names):
        if file.is_file():
            own = f"{group}." if group in _groups() else ""
            yield from config_files.mistakes(file, own, lambda key, value: key_mistake(key, value, known))


def key_mistake(key: str, value: Any, known: DictConfig) -> str | None:
    """Return why a key cannot have a value, or does not exist; None if all is well.

    Args:
        known: the schema; the value is set in it.
    """
    if key.startswith("trainer.") and not is_key(key):
        return lightning_mistake(key.removeprefix("trainer."), value)
    if key in _groups():
        return f"{key} is a group of keys and has no value of its own, {value}: choose a file, or set {key}.KEY"
    if not is_key(key):
        return unknown(key)
    try:
        OmegaConf.update(known, key, value, merge=True)
    except OmegaConfBaseException as error:
        return explain(error)
    return None


def lightning_mistake(key: str, value: Any) -> str | None:
    """Return why Lightning's Trainer cannot take a key or its value; None if it can. Import Lightning to find out."""
    own = [f"trainer.{field.name}" for field in fields(Trainer) if field.name != "more"]
    if key == "overfit_batches":
        return f"trainer.{key} would not train as it says: use trainer.limit_train_batches above 0"
    if key in OURS:
        return f"trainer.{key} is set by the run itself: leave it out"
    from pytorch_lightning import Trainer as Lightning

    if kind := get_type_hints(Lightning.__init__).get(key):
        kinds = get_args(kind) or (kind,)
        plain = set(kinds) <= {bool, int, float, str, type(None)}
        return f"trainer.{key}={value} takes {type_words(kind)}" if plain and not isinstance(value, kinds) else None
    return f"trainer.{key} is not a key of the configuration: {suggest(f'trainer.{key}', own)}"


@cache
def _groups() -> tuple[str, ...]:
    kinds = get_type_hints(Config)
    return tuple(field.name for field in fields(Config) if is_dataclass(kinds[field.name]))


def quote_text(word: str, several: bool = False) -> str:
    """Quote the value of a key that holds a text, such as a path, so that Hydra takes it whatever is in it.

    Args:
        several: whether the command is a sweep, whose overrides may list several values.
    """
    key, equals, text = word.partition("=")
    name = key.lstrip("+")
    hydras = name in ("hydra.run.dir", "hydra.sweep.dir")
    if not equals or not (hydras or key_types().get(name) in (str, str | None)):
        return word
    try:
        (override,) = OverridesParser.create().parse_overrides([word])
    except OverrideParseException:
        pass
    else:
        is_list = override.is_sweep_override() and several and not Path(text).exists()
        if is_list or text[:1] in ("'", '"', "") or text == "null" or not re.search(r"[^\w./${}:+-]", text):
            return word
    return f"{key}={QuotedString(os.path.expanduser(text) if hydras else text, Quote.single).with_quotes()}"


# ------------------------------------------------------------------------------------------------ errors
def unknown(key: str) -> str:
    """Return the sentence about a key that does not exist."""
    group, dot, _ = key.partition(".")
    if group == "hydra":
        return f"{key} is not a key of Hydra's: alexnet-train --cfg hydra shows them"
    if group in ("experiment", "sweep"):
        return f"{key} is not a key of the configuration: does its file begin with `{config_files.GLOBAL}`?"
    groups = list(get_type_hints(Config))
    keys = [known for known in key_types() if "." in known or not dot]
    inside = [known for known in keys if key in known.rpartition(".")[2]]  # lr, epochs: typed without their group
    if inside and not dot and len(key) > 1:
        near = f"did you mean {min(inside, key=lambda known: len(known.rpartition('.')[2]))}?"
    else:
        near = suggest(key, keys) if group in groups else suggest(group, groups)
    return f"{key} is not a key of the configuration: {near}"


def explain(error: OmegaConfBaseException) -> str:
    """Turn OmegaConf's several lines about one key into one sentence."""
    key = error.full_key or str(error.key or "")
    kind = key_types().get(key) or key_types().get(key.rpartition(".")[0])  # or an entry of a dict
    choices = next((k for k in (kind, *get_args(kind)) if isinstance(k, type) and issubclass(k, Enum)), None)
    reason = re.sub(r"^\w+ raised while resolving interpolation: ", "", str(error.msg or error).split("\n")[0])
    quoted = re.search(r"^Value (\S+) \(|'(.*?)'", reason)
    value = quoted[quoted.lastindex or 0].strip("'") if quoted else ""
    if value.startswith("${oc.env:"):
        variable = value.removeprefix("${oc.env:").split(",")[0].rstrip("}")
        value = f"{os.environ.get(variable, '')} (from the environment variable {variable})"
    if isinstance(error, MissingMandatoryValue) or "issing mandatory value" in reason:
        return f"{key} has no value: give one with {key}=..."
    if choices and value:
        names = list(choices.__members__)
        off = " (YAML reads off as false: write 'off' in quotes)" if value == "False" and "off" in names else ""
        return f"{key}={value} is not a choice: {suggest(value, names)}{off}"
    if "is not a ListConfig" in reason:
        return f"{key} takes a list: {key}=[...,...], or {key}=[] for none"
    if "could not be converted to" in reason:
        return f"{key}={value} is not of type {reason.split()[-1].lower()}"
    if isinstance(error, ConfigKeyError | ConfigAttributeError) and key:
        return unknown(key)
    if kind and (isinstance(error, ValidationError) or "Cannot assign" in reason):
        return f"{key} takes {type_words(kind)}: {reason}"
    return f"{key}: {reason}" if key and key not in reason else reason


def user_error(error: BaseException | None) -> UserError | None:
    """Return the user's mistake behind an error of Hydra, OmegaConf, YAML or the file system. None: a bug."""
    while error is not None:
        if isinstance(error, MissingConfigException) and error.options is not None:  # an OSError as well
            group, _, choice = str(error.missing_cfg_file).rpartition("/")
            near = suggest(choice, list(error.options)) if error.options else "in a file, write override /GROUP: CHOICE"
            return ConfigError(f"{group}={choice} is not a choice: {near}")
        if isinstance(error, HydraException) and error.__cause__ is None:
            return ConfigError(" ".join(re.split(r"\n\n|\n\s*full_key", str(error))[0].split()))
        if isinstance(error, UserError | OSError):
            return find_user_error(error)
        if isinstance(error, OmegaConfBaseException):
            return error.__cause__ if isinstance(error.__cause__, ConfigError) else ConfigError(explain(error))
        if isinstance(error, yaml.YAMLError):
            return ConfigError(config_files.explain(error))
        if isinstance(error, RecursionError):
            return ConfigError("a file of the configuration includes itself: look at its defaults and its anchors (&)")
        error = error.__cause__
    return None


@contextmanager
def translated() -> Iterator[None]:
    """Raise the errors of Hydra, OmegaConf and YAML inside as `UserError`s of one sentence."""
    try:
        yield
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, RecursionError) as error:
        if (reason := user_error(error)) is None:
            raise
        raise reason from error
