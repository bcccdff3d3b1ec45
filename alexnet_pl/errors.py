"""Errors that a user can act on. Each is one sentence and ends the program without a traceback."""

from __future__ import annotations

import signal


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its type if it has none."""
    return str(error).strip().split("\n")[0] or type(error).__name__


def one_line(error: BaseException) -> str:
    """Return an error's whole message in one line, or the name of its type if it has none."""
    return visible_line(error) or type(error).__name__


def visible(text: str) -> str:
    """Return a text from outside, such as a file's name, with characters that are not printable escaped.

    On a terminal, a control character could change colours, and a line break could forge a line.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def visible_line(value: object) -> str:
    """Return the text of any object in a single line, as `visible` shows it."""
    return visible(" ".join(str(value).split()))


class UserError(Exception):
    """An error that the user sees as sentences, a line each. Any other exception is a bug and keeps its traceback."""

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
    """Another process of the run was lost, or never met. The reason why that one ended says more, if there is one."""

    words = "another process of the run could not be reached"

    def __init__(self, reason: str) -> None:
        super().__init__(f"{self.words}: {reason}")


class Interrupted(UserError):
    """A signal asked the command to end.

    Args:
        signum: the signal; SIGALRM if trainer.max_time is over.
        kept: what is on disk, so that the same command continues; empty if the command begins again.
    """

    def __init__(self, signum: int, kept: str = "the checkpoint is written") -> None:
        over = signum == signal.SIGALRM
        reason = "trainer.max_time is over" if over else f"stopped by {signal.Signals(signum).name}"
        super().__init__(f"{reason}; {kept}: the same command continues from it" if kept else reason)
        self.exit_code = 128 + signum


def find_user_error(error: BaseException | None) -> UserError | None:
    """Return the user's error behind an error and its causes; None for a bug."""
    if any(isinstance(e, KeyboardInterrupt) for e in (error, error and error.__context__)):
        return Interrupted(signal.SIGINT, kept="")  # before a run listens, or at once: of that Lightning makes an exit
    while error is not None:
        if isinstance(error, UserError):
            return error
        if isinstance(error, OSError):
            return UserError(f"{error.filename or 'the file system'}: {error.strerror or error}")
        error = error.__cause__
    return None
