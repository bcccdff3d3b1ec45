"""The prepare command in processes that can be slowed down, starved and killed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.helpers.sources import PART

COMMAND = """
import json, os, resource, signal, sys, time, traceback
from alexnet_pl.data import decode, store
from alexnet_pl.prepare import cli, preview

def die_at(steps):
    def count(event, args):
        nonlocal steps
        writes = event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR)
        if writes or event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir"):
            steps -= 1
            if not steps:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(count)

def slow(function, seconds):
    return lambda *args: (time.sleep(seconds), function(*args))[1]

for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if not child:
        for stream in (1, 2):
            os.dup2(os.open(asked["streams"][stream - 1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
        sys.argv = ["prepare", *asked["arguments"]]
        store.FILES_PER_SHARD, preview.TRIED = asked["part"], 4
        decode.decode_image = slow(decode.decode_image, asked["pause"])
        decode.decode_stored = slow(decode.decode_stored, asked["pause"])
        if asked["largest"]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (asked["largest"], asked["largest"]))
        if asked["die_at"]:
            die_at(asked["die_at"])
        code = 70
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # to take down the interpreter with all its libraries takes a second
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""The command, each time in a process of its own, without the seconds that imports take: one imports, and forks."""


class Commands:
    """python -m alexnet_pl.prepare, one after the other."""

    def __init__(self, folder: Path) -> None:
        self.streams = [folder / "stdout", folder / "stderr"]
        self.running = 0
        self.process = subprocess.Popen(
            [sys.executable, "-c", COMMAND], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, *arguments: object, pause: float = 0, die_at: int = 0, largest: int = 0) -> int:
        """Start one; returns its process.

        Args:
            pause: seconds for which each image takes longer.
            die_at: kill it before it does so many things to files.
            largest: bytes that a file may have.
        """
        asked = {
            "arguments": [str(argument) for argument in arguments],
            "streams": [str(path) for path in self.streams],
            "part": PART,
            "pause": pause,
            "die_at": die_at,
            "largest": largest,
        }
        for path in self.streams:
            path.write_text("")
        print(json.dumps(asked), file=self.process.stdin, flush=True)
        self.running = int(self.process.stdout.readline())
        return self.running

    def end(self) -> tuple[int, str, str]:
        """Wait for it; exit code (or minus the signal), what it said and what it complained of."""
        code, self.running = int(self.process.stdout.readline()), 0
        said, complained = (path.read_text() for path in self.streams)
        return code, said, complained

    def run(self, *arguments: object, **how) -> tuple[int, str, str]:
        self.start(*arguments, **how)
        return self.end()
