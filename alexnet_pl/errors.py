"""Errors a user can act on. Each is one sentence and ends the program without a traceback."""

from __future__ import annotations

import signal


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its type where it has none."""
    return str(error).strip().split("\n")[0] or type(error).__name__


def one_line(error: BaseException) -> str:
    """Return an error's whole message in one line, or the name of its type where it has none."""
    return visible_line(error) or type(error).__name__


def visible(text: str) -> str:
    """Return a foreign text, as a file's name, for a line at a terminal: what is no printable character is escaped.

    A control character could change the terminal, a mark of direction turn a name around, a line break forge a line.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def visible_line(value: object) -> str:
    """Return a foreign text, or whatever has one, in a single line, as `visible` shows it."""
    return visible(" ".join(str(value).split()))


class UserError(Exception):
    """Shown to the user, a line for each sentence. Any other exception is a bug and keeps its traceback."""

    exit_code = 1

    def __init__(self, *sentences: str) -> None:
        super().__init__(*sentences)
        self.sentences = tuple(map(visible, sentences))

    def __str__(self) -> str:
        return "\n".join(self.sentences)


class ConfigError(UserError):
    """A mistake in the configuration or in the files it points to."""


class InUse(ConfigError):
    """Another process trains in the run folder."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h


class TrainingError(UserError):
    """Training cannot go on."""


class NotFinite(TrainingError):
    """The training loss became infinite or not a number."""


class Disconnected(TrainingError):
    """Another process of the run was lost, or never met: why that one ended says more, where it could say so."""

    words = "another process of the run could not be reached"

    def __init__(self, reason: str) -> None:
        super().__init__(f"{self.words}: {reason}")


class Interrupted(UserError):
    """A signal asked for the end.

    Args:
        signum: SIGALRM where trainer.max_time is over.
        kept: what is on disk, from which the same command continues; empty where a command begins again.
    """

    def __init__(self, signum: int, kept: str = "the checkpoint is written") -> None:
        over = signum == signal.SIGALRM
        reason = "trainer.max_time is over" if over else f"stopped by {signal.Signals(signum).name}"
        super().__init__(f"{reason}; {kept}: the same command continues from it" if kept else reason)
        self.exit_code = 128 + signum


def find_user_error(error: BaseException | None) -> UserError | None:
    """Return the sentence for the user behind an error and its causes; None for a bug."""
    if any(isinstance(e, KeyboardInterrupt) for e in (error, error and error.__context__)):
        return Interrupted(signal.SIGINT, kept="")  # before a run listens, or at once: of that Lightning makes an exit
    while error is not None:
        if isinstance(error, UserError):
            return error
        if isinstance(error, OSError):
            return UserError(f"{error.filename or 'the file system'}: {error.strerror or error}")
        error = error.__cause__
    return None
