"""Find mistakes in a YAML file of a group, such as an experiment of one's own.

A sentence names file, line and reason; Hydra names none of them.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from alexnet_pl.errors import first_line, one_line
from alexnet_pl.files import LARGEST

GLOBAL = "# @package _global_"
"""First line of a file whose keys are those of the whole configuration"""


def mistakes(file: Path, prefix: str, key_mistake: Callable[[str, Any], str | None]) -> Iterator[str]:
    """Yield a sentence for each mistake in a file of a group.

    Args:
        prefix: prefix of its keys, `data.`; empty if they are those of the whole configuration.
        key_mistake: (key, value) -> why the key cannot have the value.
    """
    if (size := file.stat().st_size) > LARGEST:
        yield f"{file}: has {size:,} bytes, and at most {LARGEST:,} are read"
        return
    try:
        text = file.read_bytes().decode()
        content = OmegaConf.to_container(OmegaConf.load(file))
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        yield f"{file}, line {line}: not UTF-8, as which the file must be saved"
        return
    except yaml.YAMLError as error:
        yield explain(error)
        return
    except RecursionError:
        yield f"{file}: its brackets lie too deep, or an anchor (&) holds itself"
        return
    except OmegaConfBaseException as error:
        yield f"{file}: {first_line(error)}"
        return
    except OSError as error:
        if error.errno is not None:
            raise
        content = None  # OmegaConf's word for a lone number
    package = re.search(r"^#\s*@package\s+(\S+)", text, re.MULTILINE)
    if package and package[1] == "_global_":
        prefix, missing = "", False
    else:
        missing = not prefix
    if text.startswith(codecs.BOM_UTF8.decode()):
        yield f"{file}, line 1: begins with a byte order mark: save it as UTF-8 without one"
    elif missing:
        yield f"{file}, line 1: must be `{GLOBAL}`, as its keys are those of the whole configuration"
    elif not isinstance(content, dict):
        yield f"{file}, line 1: holds no KEY: VALUE"
    elif not isinstance(content.get("defaults", []), list):
        yield f"{file}, line {_line(text, 'defaults')}: defaults must be a list, - override /model: alexnet"
    elif not isinstance(content.get("hydra", {}), dict):
        yield f"{file}, line {_line(text, 'hydra')}: hydra is a group of keys and has no value of its own"
    else:
        for key, value in _leaves({key: value for key, value in content.items() if key not in ("defaults", "hydra")}):
            if sentence := key_mistake(prefix + key, value):
                yield f"{file}, line {_line(text, key)}: {sentence}"


def explain(error: yaml.YAMLError) -> str:
    """Return YAML's several lines as one sentence: file, line, reason."""
    if isinstance(error, yaml.MarkedYAMLError) and (mark := error.problem_mark or error.context_mark):
        tab = " (indent with spaces)" if "'\\t'" in str(error.problem) else ""
        return f"{mark.name}, line {mark.line + 1}: {error.problem}{tab}"
    return one_line(error)


def _line(text: str, key: str) -> int:
    """Return the line of a dotted key, from 1."""
    return dict(_lines(yaml.compose(text))).get(key, 1)


def _lines(node: yaml.Node | None, prefix: str = "") -> Iterator[tuple[str, int]]:
    """Yield each dotted key with its line, from 1."""
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        yield f"{prefix}{key.value}", key.start_mark.line + 1
        yield from _lines(value, f"{prefix}{key.value}.")


def _leaves(content: dict[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted keys that a file sets and their values, except values that are computed."""
    for key, value in content.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        elif not (isinstance(value, str) and "${" in value):
            yield f"{prefix}{key}", value
