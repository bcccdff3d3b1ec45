"""The W&B server: its address, the key for it, and whether it answers."""

from __future__ import annotations

import base64
import json
import netrc
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from urllib.parse import urlsplit

from alexnet_pl.errors import ConfigError, UserError, one_line
from alexnet_pl.files import expand

SECONDS = 20
"""Seconds to wait for an answer"""


def address() -> str:
    """Return the address of W&B's server: WANDB_BASE_URL, or the public one.

    Raises:
        ConfigError: the variable is no address.
    """
    given = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    try:
        parts = urlsplit(given)
        right = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number, half of an IPv6 address
        right = False
    if not right or re.search(r"\s", given):
        raise ConfigError(
            f"WANDB_BASE_URL={given!r} is not the address of a W&B server: give one such as https://api.wandb.ai, or "
            "unset it"
        )
    return given.rstrip("/")


def key() -> str:
    """Return the W&B key from the environment or the file of `wandb login`; empty without one. Never ask for it."""
    if given := os.environ.get("WANDB_API_KEY"):
        return given
    file = expand(os.environ.get("NETRC", "~/.netrc"))
    try:
        found = netrc.netrc(file).authenticators(urlsplit(address()).netloc)
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError):  # none, or not one that a client could read
        return ""
    return (found[2] or "") if found else ""


def require(purpose: str) -> None:
    """Refuse to begin work that needs W&B's server if it cannot be reached: W&B's client would try for ever.

    Args:
        purpose: the work, for messages.
    Raises:
        ConfigError: there is no key, or WANDB_BASE_URL is no address.
        UserError: the server does not answer, or not as W&B's does, or refuses the key.
    """
    require_key(purpose)
    server, token = address(), base64.b64encode(f"api:{key()}".encode()).decode()
    headers = {"Content-Type": "application/json", "Authorization": f"Basic {token}", "User-Agent": "alexnet_pl"}
    question = json.dumps({"query": "query Viewer { viewer { id } }"}).encode()
    try:
        request = urllib.request.Request(f"{server}/graphql", question, headers)
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            known = isinstance(json.loads(answer.read(1_000_000)), dict)
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            raise UserError(f"W&B's server {server} refuses the key: run `wandb login --relogin`") from error
        raise UserError(f"W&B's server {server} answers HTTP {error.code}: try again when it works") from error
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise UserError(f"W&B's server {server} does not answer ({reason}): try again when it does") from error
    except (HTTPException, ValueError) as error:
        reason = one_line(error)
        raise UserError(f"{server} does not answer as a W&B server does ({reason}): is its address right?") from error
    if not known:
        raise UserError(f"{server} does not answer as a W&B server does: is its address right?")


@contextmanager
def translated(failure: str) -> Iterator[None]:
    """Turn any exception of W&B's client inside into a UserError, `failure (its reason)`.

    The client raises errors of its own, of its libraries, and of the process that it starts.
    """
    try:
        yield
    except Exception as error:
        raise UserError(f"{failure} ({one_line(error)})") from error


def require_key(purpose: str) -> None:
    """Raise ConfigError if there is no key for W&B."""
    if not key():
        raise ConfigError(f"{purpose} needs a W&B key and none was found: run `wandb login`, or set WANDB_API_KEY")
