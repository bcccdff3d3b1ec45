"""Code as a process of a run: `Process(["tests.helpers.script", CODE, ...], ...)`."""

import os
import signal
import sys
import time


def main() -> None:
    """Run the code that is the first argument."""
    names = {"os": os, "signal": signal, "sys": sys, "time": time, "rank": int(os.environ.get("RANK", 0))}
    exec(sys.argv[1], names)
