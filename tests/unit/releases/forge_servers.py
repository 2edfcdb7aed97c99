"""Forges for tests: a small HTTP server that keeps the pull requests of a bare repository, and a real Gitea."""

import json
import os
import subprocess
import threading
import urllib.request
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

TOKEN = "token-of-the-test"


class SmallForge(ThreadingHTTPServer):
    """Answers as GitHub documents it: list, create (422 for a second open one of a branch), update."""

    def __init__(self, bare: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bare, self.requests, self.lock = bare, [], threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def tip(self, branch: str) -> str:
        command = ["git", "-C", str(self.bare), "rev-parse", "--verify", "--quiet", f"refs/heads/{branch}"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


class _Handler(BaseHTTPRequestHandler):
    server: SmallForge

    def log_message(self, *_words: Any) -> None:
        pass

    def answer(self, status: int, body: Any) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def handle_one(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        given = json.loads(self.rfile.read(length)) if length else {}
        path, _, query = self.path.partition("?")
        parts = path.strip("/").split("/")
        if self.headers.get("Authorization") != f"token {TOKEN}":
            return self.answer(401, {"message": "Bad credentials"})
        if parts[:4] != ["repos", self.server.bare.parent.name, self.server.bare.name.removesuffix(".git"), "pulls"]:
            return self.answer(404, {"message": "Not Found"})
        with self.server.lock:
            return self.act(parts[4:], dict(pair.split("=", 1) for pair in query.split("&") if pair), given)

    def act(self, parts: list[str], query: dict[str, str], given: dict[str, Any]) -> None:
        known = self.server.requests
        if self.command == "GET":
            size, page = int(query["per_page"]), int(query["page"])
            return self.answer(200, known[::-1][(page - 1) * size : page * size])
        if self.command == "PATCH":
            found = known[int(parts[0]) - 1]
            found.update({key: given[key] for key in given})
            return self.answer(200, found)
        tip = self.server.tip(given["head"])
        open_ones = [r for r in known if r["state"] == "open" and r["head"]["ref"] == given["head"]]
        if not tip or open_ones:
            return self.answer(422, {"message": "Validation Failed"})
        number = len(known) + 1
        made = {
            "number": number,
            "html_url": f"{self.server.url}/pulls/{number}",
            "state": "open",
            "merged_at": None,
            "title": given["title"],
            "body": given["body"],
            "head": {"ref": given["head"], "sha": tip},
            "base": {"ref": given["base"]},
        }
        known.append(made)
        return self.answer(201, made)

    do_GET = do_POST = do_PATCH = handle_one  # noqa: N815


class Gitea:
    """A repository of its own on a Gitea that runs already: DRIFTLINE_TEST_GITEA is its address, with `user:token@`."""

    ADDRESS = os.environ.get("DRIFTLINE_TEST_GITEA", "")

    def __init__(self) -> None:
        scheme, _, rest = self.ADDRESS.partition("://")
        user, _, host = rest.partition("@")
        self.owner, _, self.token = user.partition(":")
        self.root, self.name = f"{scheme}://{host.rstrip('/')}", f"r{uuid.uuid4().hex[:10]}"
        self.call("POST", "/user/repos", {"name": self.name, "default_branch": "main", "auto_init": False})
        self.git_url = f"{self.root}/{self.owner}/{self.name}.git"
        self.push_url = f"{scheme}://{user}@{host.rstrip('/')}/{self.owner}/{self.name}.git"

    def call(self, method: str, path: str, given: Any = None) -> Any:
        request = urllib.request.Request(  # noqa: S310
            f"{self.root}/api/v1{path}",
            data=None if given is None else json.dumps(given).encode(),
            method=method,
            headers={"Authorization": f"token {self.token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            content = answer.read()
        return json.loads(content) if content else None
