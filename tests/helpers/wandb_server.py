"""A stand-in for the W&B server, for tests: what the real client of wandb 0.31 sends is kept in memory.

What it proves: which runs, configurations, history rows, files, exit codes and saved workspaces leave this machine,
over the client's real HTTP protocol, for online runs, for `wandb sync`, and for `wandb sweep` with `wandb agent`, to
which it hands out the points of a grid. What it does not prove: that wandb.ai takes, shows or plots them. It answers
every request with the least that contents the client, and checks neither keys nor contents.
"""

from __future__ import annotations

import gzip
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from typing import Any

import yaml

KEY = "local-" + "0" * 40
"""A key of the form the client accepts."""
SWEEP = "sweep1"
"""The name of the sweep that an agent works on."""


@dataclass
class Received:
    """One run as the server holds it."""

    fields: dict[str, Any] = field(default_factory=dict)
    """displayName, groupName, project, tags, ...: the variables of the run's last UpsertBucket"""
    lines: dict[str, list[str]] = field(default_factory=dict)
    """the streamed files by name, line by line, each line at the place the client gave"""
    exit_code: int | None = None
    """None while the run is open"""

    @property
    def config(self) -> dict[str, Any]:
        """The configuration; under `_wandb` what the client tells about itself."""
        return {key: entry["value"] for key, entry in json.loads(self.fields["config"]).items()}

    @property
    def history(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines.get("wandb-history.jsonl", [])]

    @property
    def summary(self) -> dict[str, Any]:
        return json.loads((self.lines.get("wandb-summary.json") or ["{}"])[-1])

    def stream(self, body: dict[str, Any]) -> None:
        """Take one file_stream request: as on the real server, a chunk replaces the lines from its offset on."""
        for name, chunk in (body.get("files") or {}).items():
            lines, offset = self.lines.setdefault(name, []), chunk.get("offset") or 0
            lines[offset : offset + len(chunk["content"])] = chunk["content"]
        if body.get("complete"):
            self.exit_code = body["exitcode"]


class Handler(BaseHTTPRequestHandler):
    """Answers the client; the runs are the server's."""

    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._answer({})

    def do_PUT(self) -> None:
        with self.server.lock:
            self.server.uploads[self.path.removeprefix("/upload/")] = self._body()
        self._answer({})

    def do_POST(self) -> None:
        body = self._body()
        stream = re.match(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path)
        if stream:
            with self.server.lock:
                self.server.runs.setdefault(stream[1], Received()).stream(json.loads(body))
            self._answer({"exitcode": None, "limits": {}})
        elif self.path.startswith("/graphql"):
            asked = json.loads(body)
            named = re.search(r"(?:query|mutation)\s+(\w+)", asked["query"])
            operation = asked.get("operationName") or (named[1] if named else "")
            with self.server.lock:
                self._answer({"data": self._graphql(operation, asked.get("variables") or {})})
        else:
            self._answer({})

    def _graphql(self, operation: str, v: dict[str, Any]) -> dict[str, Any]:
        runs = self.server.runs
        if operation == "Viewer":
            user = {"id": "VXNlcjox", "entity": "local", "username": "local", "email": "", "flags": "{}"}
            return {"viewer": user | {"teams": {"edges": []}}}
        if operation == "GetDefaultEntity":
            return {"viewer": {"id": "VXNlcjox", "entity": "local"}}
        if operation == "ArtifactMembershipByName":  # it keeps no artifacts
            return {"project": None}
        if operation == "ServerInfo":
            versions = {"max_cli_version": "9.9.9", "min_cli_version": "0.0.0"}
            return {"serverInfo": {"cliVersionInfo": versions, "latestLocalVersionInfo": None}}
        if operation == "ServerFeaturesQuery":
            return {"serverInfo": {"features": []}}
        if operation == "RunStoppedStatus":
            return {"project": {"run": {"stopped": False}}}
        if operation == "ProjectInternalId":
            return {"project": {"id": "UHJvag==", "internalId": "UHJvag=="}}
        if operation == "OrganizationCoreWeaveOrganizationID":
            return {"entity": {"organization": None}}
        if operation == "RunResumeStatus":
            return {"model": self._resume_status(runs[v["name"]]) if v["name"] in runs else None}
        if operation == "UpsertBucket":
            new = v["name"] not in runs
            run = runs.setdefault(v["name"], Received())
            run.fields |= {key: value for key, value in v.items() if value is not None}
            project = {"id": "UHJvag==", "name": v.get("project"), "entity": {"id": "RW50", "name": "local"}}
            bucket = {"id": "UnVu" + v["name"], "name": v["name"], "displayName": v.get("displayName")}
            bucket |= {"description": "", "config": v.get("config"), "sweepName": None, "project": project}
            bucket |= {"historyLineCount": len(run.history)}
            return {"upsertBucket": {"bucket": bucket, "inserted": new}}
        if operation == "CreateRunFiles":
            place = f"http://{self.headers['host']}/upload/{v['run']}/"
            files = [{"name": name, "uploadUrl": place + name} for name in v["files"]]
            return {"createRunFiles": {"runID": "x", "uploadHeaders": [], "files": files}}
        if operation == "UpsertView2":
            self.server.views[v["name"]] = v
            return {"upsertView": {"view": {"id": "view-" + v["name"], "name": v["name"]}, "inserted": "id" not in v}}
        if operation == "View":
            kept = self.server.views.get(v["viewName"])
            node = kept and {"id": "view-" + v["viewName"], "displayName": kept["displayName"], "spec": kept["spec"]}
            return {"project": {"allViews": {"edges": [{"node": node}] if node else []}}}
        return self._sweep(operation, v)

    def _sweep(self, operation: str, v: dict[str, Any]) -> dict[str, Any]:
        sweep = self.server.sweep
        if operation == "UpsertSweep":
            if v.get("config"):
                sweep |= {"config": v["config"], "points": points(v["config"])}
            project = {"id": "UHJvag==", "name": v["projectName"], "entity": {"id": "RW50", "name": "local"}}
            return {"upsertSweep": {"sweep": {"name": SWEEP, "project": project}, "configValidationWarnings": []}}
        if operation == "SweepWithRuns":
            then = dict.fromkeys(("createdAt", "heartbeatAt", "updatedAt"), "2026-01-01T00:00:00")
            told = {"id": "U3dlZXA=", "name": SWEEP, "displayName": SWEEP, "bestLoss": None, "description": None}
            told |= {"method": "grid", "state": "RUNNING", "config": sweep["config"], "earlyStopJobRunning": False}
            told |= {"controller": None, "scheduler": None, "runs": {"edges": []}} | then
            return {"project": {"sweep": told}}
        if operation == "CreateAgent":
            return {"createAgent": {"agent": {"id": "QWdlbnQ="}}}
        if operation == "Heartbeat":
            commands: list[dict[str, Any]] = []
            if not any(json.loads(v["runState"] or "{}").values()):  # none is running
                commands.append(sweep["points"].pop(0) if sweep["points"] else {"type": "exit"})
            return {"agentHeartbeat": {"agent": {"id": "QWdlbnQ="}, "commands": json.dumps(commands)}}
        self.server.unknown.add(operation)
        return {}

    @staticmethod
    def _resume_status(run: Received) -> dict[str, Any]:
        """What a client asks before it takes up a run that the server knows."""
        bucket: dict[str, Any] = {"name": run.fields["name"], "displayName": run.fields["displayName"]}
        for name, file in (("history", "wandb-history.jsonl"), ("events", "wandb-events.jsonl"), ("log", "output.log")):
            bucket[name + "LineCount"] = len(run.lines.get(file, []))
            bucket[name + "Tail"] = json.dumps(run.lines.get(file, [])[-1:])
        bucket |= {"summaryMetrics": json.dumps(run.summary), "config": run.fields["config"], "tags": [], "notes": ""}
        bucket |= {"wandbConfig": json.dumps({"t": 1})}
        return {"id": "UHJvag==", "name": run.fields["project"], "entity": {"name": "local"}, "bucket": bucket}

    def _body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        return gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body

    def _answer(self, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def points(text: str) -> list[dict[str, Any]]:
    """What the server of W&B tells an agent for each point of a grid."""
    config = yaml.safe_load(text)
    keys = config["parameters"]
    grid = [dict(zip(keys, values, strict=True)) for values in product(*(key["values"] for key in keys.values()))]
    return [
        {"type": "run", "run_id": f"point{i}", "program": config["program"]}
        | {"args": {key: {"value": value} for key, value in point.items()}}
        for i, point in enumerate(grid)
    ]


class Server(ThreadingHTTPServer):
    """Listens on a free loopback port from the start of a `with` block to its end."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.runs: dict[str, Received] = {}
        self.uploads: dict[str, bytes] = {}
        """files by run and name"""
        self.views: dict[str, dict[str, Any]] = {}
        """saved workspaces by name: the variables of the last UpsertView2"""
        self.sweep: dict[str, Any] = {}
        """the one sweep: its configuration, and the points that no agent has taken"""
        self.unknown: set[str] = set()
        """operations that had no proper answer: a newer client asks more than this stand-in knows"""
        self.lock = threading.Lock()

    @property
    def environment(self) -> dict[str, str]:
        """What makes a client of this machine take this server for W&B's."""
        return {"WANDB_BASE_URL": f"http://127.0.0.1:{self.server_address[1]}", "WANDB_API_KEY": KEY}

    def handle_error(self, *args: Any) -> None:
        """A client that was killed in the middle of a request is no error."""

    def __enter__(self) -> Server:
        threading.Thread(target=self.serve_forever, args=[0.01], daemon=True).start()
        return self

    def __exit__(self, *args: Any) -> None:
        self.shutdown()
        self.server_close()


def history_rows(history: list[dict[str, Any]]) -> list[dict[str, float]]:
    """Return rows as metrics.csv has them: without the client's own columns, and Lightning's name for the step."""
    rows = [{("step" if k == "trainer/global_step" else k): v for k, v in row.items()} for row in history]
    return [{key: value for key, value in row.items() if not key.startswith("_")} for row in rows]


def own_config(received: Received) -> dict[str, Any]:
    """Return the configuration on the server, without what the client adds."""
    return {key: value for key, value in received.config.items() if key != "_wandb"}


def without_empty(node: Any) -> Any:
    """Return a configuration without its empty dicts, which the client does not send."""
    return {key: without_empty(value) for key, value in node.items() if value != {}} if isinstance(node, dict) else node
