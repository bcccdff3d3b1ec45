"""What a process that composes configurations does once: done in the server that tests/forked.py forks from."""

from tests.conftest import composed

composed("experiment=figure1")
