"""The keys of a configuration: their dotted names, types and meanings, read from the dataclasses of schema.py."""

from __future__ import annotations

import ast
import inspect
import itertools
import math
from dataclasses import is_dataclass
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from alexnet_pl.config.schema import Config


@cache
def key_types(schema: type = Config, prefix: str = "") -> dict[str, Any]:
    """Return every dotted key of the schema with its type: {"seed": int, "model.activation": Activation, ...}."""
    out: dict[str, Any] = {}
    for name, kind in get_type_hints(schema).items():
        if isinstance(kind, type) and is_dataclass(kind):
            out |= key_types(kind, f"{prefix}{name}.")
        else:
            out[prefix + name] = kind
    return out


def is_key(key: str) -> bool:
    """Return whether a dotted key exists: a field, or an entry of a field that holds a dict (model.widths.conv1)."""
    kinds = key_types()
    return key in kinds or any(key.startswith(f"{k}.") and "dict" in str(kind) for k, kind in kinds.items())


def fits(value: Any, kind: Any) -> bool:
    """Return whether a plain value, as `as_dict` makes it, has a key's type. An infinite float or NaN never fits."""
    if get_origin(kind) is list:
        return isinstance(value, list) and all(fits(entry, *get_args(kind)) for entry in value)
    if get_origin(kind) is dict:
        return isinstance(value, dict) and all(fits(entry, get_args(kind)[1]) for entry in value.values())
    if is_dataclass(kind):
        kinds = get_type_hints(kind)
        return isinstance(value, dict) and value.keys() == kinds.keys() and all(fits(value[k], kinds[k]) for k in kinds)
    if get_args(kind):
        return any(fits(value, each) for each in get_args(kind))
    if isinstance(value, float) and not math.isfinite(value):
        return False
    if kind in (Any, None, NoneType):
        return kind is Any or value is None
    if issubclass(kind, Enum):
        return isinstance(value, str) and value in kind.__members__
    return isinstance(value, int | float if kind is float else kind) and (kind is bool or not isinstance(value, bool))


def type_words(kind: Any) -> str:
    """Return a type as --help shows it: its choices, or its name."""
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "|".join(kind.__members__)
    if isinstance(kind, type) and is_dataclass(kind):
        return "{" + ", ".join(f"{name}: {type_words(each)}" for name, each in get_type_hints(kind).items()) + "}"
    values = get_args(kind)
    if values and get_origin(kind) is dict:
        return f"{{NAME: {type_words(values[1])}, ...}}"
    if values and get_origin(kind) is list:
        return f"[{type_words(values[0])},...]"
    if get_origin(kind) in (Union, UnionType):
        return " | ".join(map(type_words, values)).replace("NoneType", "null")
    return getattr(kind, "__name__", str(kind).replace("typing.", ""))


@cache
def key_docs(schema: type = Config, prefix: str = "") -> dict[str, str]:
    """Return every dotted key with the text below its field in schema.py."""
    (cls,) = ast.parse(inspect.getsource(schema)).body
    assert isinstance(cls, ast.ClassDef)
    kinds = get_type_hints(schema)
    out: dict[str, str] = {}
    for node, below in itertools.pairwise([*cls.body, ast.Pass()]):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
            if is_dataclass(kinds[name]):
                out |= key_docs(kinds[name], f"{prefix}{name}.")
            elif isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                out[prefix + name] = str(below.value.value)
    return out


def format_value(value: Any) -> str:
    """Return a plain value as one types it on the command line.

    >>> format_value(["conv1", "conv2"]), format_value(None), format_value(True), format_value({"conv1": 0.01})
    ('[conv1,conv2]', 'null', 'true', '{conv1: 0.01}')
    """
    if isinstance(value, list):
        return f"[{','.join(map(format_value, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {format_value(each)}" for key, each in value.items()) + "}"
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else str(value)
