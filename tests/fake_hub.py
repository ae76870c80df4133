"""A hub on this machine, for the real huggingface_hub to talk to: a few repositories, one gated, served over HTTP."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Files = dict[str, bytes]


class FakeHub:
    """repositories: name -> revision -> files. `told_sizes` are listed instead of true ones. Use as a context manager; see `url`."""

    def __init__(self, repositories: dict[str, dict[str, Files]], *, gated: str = "", told_sizes: dict[str, int] | None = None) -> None:
        self.repositories, self.gated, self.told_sizes = repositories, gated, told_sizes or {}
        self.tokens: set[str | None] = set()
        self.downloads: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.answer(self, with_body=True)

            def do_HEAD(self) -> None:
                hub.answer(self, with_body=False)

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FakeHub:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request: BaseHTTPRequestHandler, *, with_body: bool) -> None:
        self.tokens.add(request.headers.get("Authorization"))
        path = request.path.partition("?")[0].strip("/")
        api = path.startswith("api/models/")
        owner, name, *rest = path.removeprefix("api/models/").split("/")
        repo = f"{owner}/{name}"
        revision = rest[1] if len(rest) > 1 else "main"
        if repo not in self.repositories:
            self._send(request, 401, {"X-Error-Code": "RepoNotFound"}, b"", with_body)
        elif repo == self.gated:
            self._send(request, 403, {"X-Error-Code": "GatedRepo"}, b"", with_body)
        elif revision not in self.repositories[repo] and revision not in self._commits(repo):
            self._send(request, 404, {"X-Error-Code": "RevisionNotFound"}, b"", with_body)
        elif api:
            self._send(request, 200, {"Content-Type": "application/json"}, json.dumps(self._info(repo, revision)).encode(), with_body)
        else:
            self._send_file(request, repo, self._commits(repo).get(revision, revision), "/".join(rest[2:]), with_body)

    def _info(self, repo: str, revision: str) -> dict[str, Any]:
        files = self.repositories[repo][revision]
        siblings = [{"rfilename": name, "size": self.told_sizes.get(name, len(data))} for name, data in files.items()]
        return {"id": repo, "sha": _commit(repo, revision), "siblings": siblings, "private": False, "tags": [], "downloads": 0, "likes": 0}

    def _commits(self, repo: str) -> dict[str, str]:
        return {_commit(repo, revision): revision for revision in self.repositories[repo]}

    def _send_file(self, request: BaseHTTPRequestHandler, repo: str, revision: str, name: str, with_body: bool) -> None:
        data = self.repositories[repo][revision][name]
        headers = {"X-Repo-Commit": _commit(repo, revision), "ETag": f'"{hashlib.sha256(data).hexdigest()}"'}
        if with_body:
            self.downloads.append(name)
        self._send(request, 200, headers, data, with_body)

    def _send(self, request: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes, with_body: bool) -> None:
        request.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            request.send_header(key, value)
        request.end_headers()
        if with_body:
            request.wfile.write(body)


def _commit(repo: str, revision: str) -> str:
    return hashlib.sha1(f"{repo} {revision}".encode()).hexdigest()
