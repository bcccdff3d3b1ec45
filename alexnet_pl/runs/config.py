"""Read back config.yaml of a run: each key of the schema with a value of its type, or the file is damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf import MISSING

from alexnet_pl.config.keys import fits, is_key, key_types
from alexnet_pl.config.schema import Config, as_dict
from alexnet_pl.errors import ConfigError, first_line
from alexnet_pl.files import damaged, read_text
from alexnet_pl.runs.naming import flatten_config

REMOVE_RUN = "remove the run's folder, or bring the file back from a copy of it"


def read_config(path: Path) -> dict[str, Any]:
    """Return the configuration in a config.yaml. Keys that are newer than the file get their defaults.

    Raises:
        ConfigError: the file is damaged, or another version of this package wrote it.
    """
    try:
        text = read_text(path, REMOVE_RUN, largest=1 << 17)
        if "*" in text and any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise ValueError("parts of it stand for others, which a run never writes")  # a few lines can be terabytes
        plain = yaml.safe_load(text)  # not in C, where brackets in brackets end the process
        json.dumps(plain, ensure_ascii=False).encode()  # which dates and halves of characters refuse
        if not isinstance(plain, dict):
            raise ValueError(f"it is a {type(plain).__name__}" if text.strip() else "it is empty")
    except FileNotFoundError as error:
        raise damaged(path, "it is not there", REMOVE_RUN) from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise damaged(path, f"it is no configuration ({first_line(error)})", REMOVE_RUN) from error
    return check_config(plain, path, REMOVE_RUN)


def check_config(plain: dict[Any, Any], path: Path, advice: str) -> dict[str, Any]:
    """Return a configuration that a run has written. Keys that are newer get their defaults.

    Args:
        path: the file that holds it.
        advice: what to do about a damaged one.
    Raises:
        ConfigError: a key is unknown, a value is missing or of another type, or a float is not finite.
    """
    config = as_dict(Config())
    for key, value in ((str(key), value) for key, value in plain.items()):
        if isinstance(config.get(key), dict) and not isinstance(value, dict):
            raise damaged(path, f"{key} is {value!r}", advice)
        config[key] = config[key] | value if isinstance(config.get(key), dict) else value
    known = key_types()
    for key in flatten_config(config):
        if not is_key(key) and not any(key.startswith(f"{each}.") for each in known):
            raise ConfigError(
                f"{path} was written by another version of this package, which had a key {key}: train again in a "
                "folder of its own, or use that version"
            )
    for key, kind in known.items():
        group, _, leaf = key.rpartition(".")
        value = (config[group] if group else config)[leaf]
        if value == MISSING or not fits(value, kind):
            raise damaged(path, f"{key} is {'missing' if value == MISSING else repr(value)}", advice)
    return config
