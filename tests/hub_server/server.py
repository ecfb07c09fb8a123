"""The HTTP side of the loopback Hub: routes, tokens, errors as the client expects them."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from .store import KINDS, Blob, Commit, Repo
from .validation import card_errors

LFS_SUFFIXES = (".safetensors", ".parquet", ".png", ".bin")
CUT_BODY = "body"


class HubError(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, code: str | None = None, message: str = "", **fields: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.fields = status, code, message, fields


class LoopbackHub:
    """A Hub on 127.0.0.1, for one process of tests.

    Attributes:
        url: What `HF_ENDPOINT` must be.
        tokens: Token to (user, whether it may write).
        repos: By (kind, id).
        requests: Method and path of what was asked, in order.
        on_request: Called before a request is answered, with method and path; it may wait. What it returns is done:
            `"drop"` closes the connection unanswered, a number is the status of the answer, `"body"` sends half the
            body and closes.
    """

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._lock = threading.Lock()
        self.reset()
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def reset(self) -> None:
        """An empty Hub with three users: `ann` may write, `ann-reader` is her token to read, `bob` is somebody else."""
        self.tokens = {"hf_ann_write": ("ann", True), "hf_ann_read": ("ann", False), "hf_bob_write": ("bob", True)}
        self.repos: dict[tuple[str, str], Repo] = {}
        self.requests: list[tuple[str, str]] = []
        self.on_request: Callable[[str, str], str | int | None] = lambda method, path: None

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def page(self, kind: str, repo_id: str) -> str:
        return f"{self.url}/{'datasets/' if kind == 'dataset' else ''}{repo_id}"

    def repo(self, repo_id: str, kind: str = "model") -> Repo:
        """A repository that is there."""
        return self.repos[kind, repo_id]

    def add(self, repo_id: str, files: dict[str, bytes], kind: str = "model", **options: Any) -> Repo:
        """A repository that somebody filled before."""
        repo = self.repos[kind, repo_id] = Repo(repo_id, kind, **options)
        repo.commit("main", {p: Blob(d, p.endswith(LFS_SUFFIXES)) for p, d in files.items()}, [], "somebody's files")
        return repo

    # ------------------------------------------------------------------ who may do what

    def user(self, header: str | None) -> tuple[str | None, bool]:
        token = (header or "").removeprefix("Bearer ").strip()
        if not token:
            return None, False
        if token not in self.tokens:
            raise HubError(401, None, "Invalid credentials in Authorization header")
        return self.tokens[token]

    def readable(self, kind: str, repo_id: str, user: str | None, *, files: bool) -> Repo:
        """The repository, or the error that the Hub gives to this user (it hides what is private)."""
        repo = self.repos.get((kind, repo_id))
        allowed = repo is not None and (user == repo.owner or user in repo.readers)
        if repo is None or (repo.private and not allowed):
            # The client reads a bare 401 as a missing repository only behind https, hence the code in both cases.
            status, message = (404, "Repository not found") if user else (401, "Invalid username or password.")
            raise HubError(status, "RepoNotFound", message)
        if repo.gated and files and not allowed:
            raise HubError(401 if user is None else 403, "GatedRepo", f"Access to {kind} {repo_id} is restricted")
        return repo

    def writable(self, kind: str, repo_id: str, who: tuple[str | None, bool]) -> Repo:
        user, may_write = who
        repo = self.readable(kind, repo_id, user, files=True)
        if user is None:
            raise HubError(401, None, "Invalid username or password.")
        if user != repo.owner or not may_write:
            raise HubError(403, None, f"you don't have the rights to write to {repo_id} with this token")
        return repo

    def create(self, who: tuple[str | None, bool], body: dict[str, Any]) -> Repo:
        user, may_write = who
        if user is None:
            raise HubError(401, None, "Invalid username or password.")
        owner = body.get("organization") or user
        if owner != user or not may_write:
            raise HubError(403, None, f"you don't have the rights to create a repository under {owner}")
        kind, repo_id = body.get("type") or "model", f"{owner}/{body['name']}"
        with self._lock:
            if (kind, repo_id) in self.repos:
                raise HubError(409, None, "You already created this repo", url=self.page(kind, repo_id))
            private = body.get("visibility") == "private" or bool(body.get("private"))
            repo = self.repos[kind, repo_id] = Repo(repo_id, kind, private=private)
        return repo

    def commit(self, repo: Repo, branch: str, lines: list[dict[str, Any]]) -> Commit:
        if branch not in repo.branches:
            raise HubError(404, "RevisionNotFound", f"Invalid rev id: {branch}")
        added: dict[str, Blob] = {}
        deleted: list[str] = []
        title, parent = "", None
        for line in lines:
            key, value = line["key"], line["value"]
            if key == "header":
                title, parent = value["summary"], value.get("parentCommit")
            elif key == "file":
                added[value["path"]] = Blob(base64.b64decode(value["content"]))
            elif key == "lfsFile":
                if value["oid"] not in repo.lfs:
                    raise HubError(400, None, f"{value['path']}: its content was not uploaded")
                added[value["path"]] = Blob(repo.lfs[value["oid"]], lfs=True)
            elif key == "deletedFile":
                deleted.append(value["path"])
            else:
                raise HubError(501, None, f"the loopback Hub does not know the operation {key}")
        if "README.md" in added and (errors := card_errors(added["README.md"].data.decode())):
            raise HubError(400, None, errors[0])
        with self._lock:
            if parent is not None and repo.branches[branch][-1].sha != parent:
                raise HubError(412, None, "A commit has happened since. Please refresh and try again.")
            return repo.commit(branch, added, deleted, title)


def _repo_json(repo: Repo, commit: Commit) -> dict[str, Any]:
    siblings = []
    for path, blob in sorted(commit.files.items()):
        entry: dict[str, Any] = {"rfilename": path, "size": len(blob.data), "blobId": blob.oid}
        siblings.append(entry)
    return {
        "_id": commit.sha[:24],
        "id": repo.id,
        "author": repo.owner,
        "sha": commit.sha,
        "lastModified": "2026-01-01T00:00:00.000Z",
        "createdAt": "2026-01-01T00:00:00.000Z",
        "private": repo.private,
        "gated": "manual" if repo.gated else False,
        "disabled": False,
        "tags": [],
        "siblings": siblings,
    }


def _entry_json(path: str, blob: Blob) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(blob.data), "oid": blob.oid}
    if blob.lfs:
        entry["lfs"] = {"oid": blob.sha256, "size": len(blob.data), "pointerSize": len(blob.pointer)}
    return entry


def _folders(paths: list[str]) -> set[str]:
    return {"/".join(path.split("/")[:depth]) for path in paths for depth in range(1, path.count("/") + 1)}


def _tree_json(commit: Commit, inside: str, recursive: bool) -> list[dict[str, Any]]:
    prefix = f"{inside}/" if inside else ""
    wanted = {path: blob for path, blob in commit.files.items() if path.startswith(prefix)}
    if inside and not wanted:
        raise HubError(404, "EntryNotFound", f"{inside} does not exist on this revision")
    entries = [_folder_json(path) for path in sorted(_folders(list(wanted))) if path.startswith(prefix)]
    entries += [_entry_json(path, blob) for path, blob in sorted(wanted.items())]
    return [entry for entry in entries if recursive or "/" not in entry["path"][len(prefix) :]]


def _folder_json(path: str) -> dict[str, Any]:
    return {"type": "directory", "path": path, "size": 0, "oid": "0" * 40}


def _handler(hub: LoopbackHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        cut = False

        def log_message(self, *args: Any) -> None:
            pass

        def _serve(self) -> None:
            url = urlsplit(self.path)
            path = url.path
            self.query = {key: values[-1] for key, values in parse_qs(url.query).items()}
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            hub.requests.append((self.command, path))
            what = hub.on_request(self.command, path)
            self.cut = what == CUT_BODY
            if what == "drop":
                self.close_connection = True
                return
            try:
                if isinstance(what, int):
                    raise HubError(what, None, "as the test wants it")
                self._route(path, body)
            except HubError as error:
                self._send_error(error)
            except Exception as error:  # a fault of this server: seen by the test, not as a lost connection
                self._send_error(HubError(501, None, f"the loopback Hub failed: {error!r}"))

        do_GET = do_HEAD = do_POST = do_PUT = _serve

        def _route(self, path: str, body: bytes) -> None:
            for (method, pattern), answer in ROUTES.items():
                found = re.fullmatch(pattern, path)
                if found and (method == self.command or (method == "GET" and self.command == "HEAD")):
                    return answer(self, body, **{key: unquote(value or "") for key, value in found.groupdict().items()})
            raise HubError(404, None, f"the loopback Hub has no route {self.command} {path}")

        # -------------------------------------------------------------- answers

        def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.wfile.write(data[: len(data) // 2] if self.cut else data)
            if self.cut:
                self.close_connection = True

        def _json(self, content: Any, status: int = 200) -> None:
            self._send(status, json.dumps(content).encode(), {"Content-Type": "application/json"})

        def _send_error(self, error: HubError) -> None:
            headers = {"Content-Type": "application/json", "X-Error-Message": error.message}
            if error.code:
                headers["X-Error-Code"] = error.code
            self._send(error.status, json.dumps({"error": error.message, **error.fields}).encode(), headers)

        # -------------------------------------------------------------- routes

        @property
        def who(self) -> tuple[str | None, bool]:
            return hub.user(self.headers.get("Authorization"))

        def whoami(self, body: bytes) -> None:
            user, may_write = self.who
            if user is None:
                raise HubError(401, None, "Invalid username or password.")
            role = "write" if may_write else "read"
            token = {"type": "access_token", "accessToken": {"displayName": "test", "role": role}}
            self._json({"type": "user", "name": user, "orgs": [], "auth": token})

        def create(self, body: bytes) -> None:
            repo = hub.create(self.who, json.loads(body))
            self._json({"url": hub.page(repo.kind, repo.id), "name": repo.id})

        def validate_yaml(self, body: bytes) -> None:
            errors = card_errors(json.loads(body)["content"])
            self._json({"errors": [{"message": text} for text in errors], "warnings": []}, 400 if errors else 200)

        def _at(self, kind: str, repo: str, revision: str, *, files: bool) -> tuple[Repo, Commit]:
            found = hub.readable(kind, repo, self.who[0], files=files)
            commit = found.at(revision or "main")
            if commit is None:
                raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return found, commit

        def info(self, body: bytes, kind: str, repo: str, revision: str = "") -> None:
            self._json(_repo_json(*self._at(kind, repo, revision, files=False)))

        def auth_check(self, body: bytes, kind: str, repo: str) -> None:
            hub.readable(kind, repo, self.who[0], files=True)
            self._json({})

        def refs(self, body: bytes, kind: str, repo: str) -> None:
            branches = hub.readable(kind, repo, self.who[0], files=False).branches
            named = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": c[-1].sha} for n, c in branches.items()]
            self._json({"branches": named, "converts": [], "tags": []})

        def commits(self, body: bytes, kind: str, repo: str, revision: str) -> None:
            found, commit = self._at(kind, repo, revision, files=False)
            history = next(list(c) for c in found.branches.values() if commit in c)
            dated = {"date": "2026-01-01T00:00:00.000Z", "authors": [], "message": ""}
            self._json([{"id": c.sha, "title": c.title, **dated} for c in reversed(history)])

        def tree(self, body: bytes, kind: str, repo: str, revision: str, inside: str = "") -> None:
            _, commit = self._at(kind, repo, revision, files=True)
            recursive = self.query.get("recursive", "").lower() in ("true", "1")
            self._json(_tree_json(commit, inside.strip("/"), recursive))

        def paths_info(self, body: bytes, kind: str, repo: str, revision: str) -> None:
            _, commit = self._at(kind, repo, revision, files=True)
            paths = parse_qs(body.decode()).get("paths") or []
            if body.startswith(b"{"):
                paths = json.loads(body)["paths"]
            folders = _folders(list(commit.files))
            entries = [_entry_json(path, commit.files[path]) for path in paths if path in commit.files]
            self._json(entries + [_folder_json(path) for path in paths if path in folders])

        def branch(self, body: bytes, kind: str, repo: str, branch: str) -> None:
            found = hub.writable(kind, repo, self.who)
            if branch in found.branches:
                raise HubError(409, None, f"Reference already exists: {branch}")
            found.start_branch(branch, json.loads(body or b"{}").get("startingPoint") or "main")
            self._json({})

        def preupload(self, body: bytes, kind: str, repo: str, revision: str) -> None:
            found = hub.writable(kind, repo, self.who)
            commit = found.at(revision)
            if commit is None:
                raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            files = []
            for file in json.loads(body)["files"]:
                mode = "lfs" if file["path"].endswith(LFS_SUFFIXES) else "regular"
                here = commit.files.get(file["path"])
                oid = None if here is None else (here.sha256 if here.lfs else here.oid)
                files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
            self._json({"files": files})

        def lfs_batch(self, body: bytes, repo: str, kind: str = "") -> None:
            found = hub.writable("dataset" if kind else "model", repo, self.who)
            objects = []
            for wanted in json.loads(body)["objects"]:
                answer = {"oid": wanted["oid"], "size": wanted["size"]}
                if wanted["oid"] not in found.lfs:
                    href = f"{hub.url}/upload/{found.kind}/{repo}/{wanted['oid']}"
                    answer["actions"] = {"upload": {"href": href, "header": {}}}
                objects.append(answer)
            self._json({"transfer": "basic", "objects": objects})

        def upload(self, body: bytes, kind: str, repo: str, oid: str) -> None:
            # As on the Hub, the address itself is the permission; nothing is visible before the commit.
            if Blob(body).sha256 != oid:
                raise HubError(400, None, "the content does not have the promised sha256")
            hub.repo(repo, kind).lfs[oid] = body
            self._send(200, b"", {})

        def commit(self, body: bytes, kind: str, repo: str, revision: str) -> None:
            found = hub.writable(kind, repo, self.who)
            commit = hub.commit(found, revision, [json.loads(line) for line in body.splitlines() if line.strip()])
            self._json({"commitUrl": f"{hub.url}/{repo}/commit/{commit.sha}", "commitOid": commit.sha, "success": True})

        def resolve(self, body: bytes, repo: str, revision: str, path: str, kind: str = "") -> None:
            _, commit = self._at("dataset" if kind else "model", repo, revision, files=True)
            blob = commit.files.get(path)
            if blob is None:
                raise HubError(404, "EntryNotFound", "Entry not found")
            headers = {
                "X-Repo-Commit": commit.sha,
                "ETag": f'"{blob.etag}"',
                "Accept-Ranges": "bytes",
                "Content-Type": "application/octet-stream",
            }
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
            if not wanted or self.command == "HEAD":
                return self._send(200, blob.data, headers)
            size = len(blob.data)
            start, end = int(wanted[1]), min(int(wanted[2] or size - 1), size - 1)
            if start >= size:
                self._send(416, b"", {**headers, "Content-Range": f"bytes */{size}"})
            else:
                self._send(206, blob.data[start : end + 1], {**headers, "Content-Range": f"bytes {start}-{end}/{size}"})

    api = rf"/api/(?P<kind>{'|'.join(KINDS)})s/(?P<repo>[^/]+/[^/]+)"
    ROUTES: dict[tuple[str, str], Callable[..., None]] = {
        ("GET", r"/api/whoami-v2"): Handler.whoami,
        ("POST", r"/api/repos/create"): Handler.create,
        ("POST", r"/api/validate-yaml"): Handler.validate_yaml,
        ("GET", api): Handler.info,
        ("GET", api + r"/revision/(?P<revision>[^/]+)"): Handler.info,
        ("GET", api + r"/auth-check"): Handler.auth_check,
        ("GET", api + r"/refs"): Handler.refs,
        ("GET", api + r"/commits/(?P<revision>[^/]+)"): Handler.commits,
        ("GET", api + r"/tree/(?P<revision>[^/]+)(?P<inside>/.*)?"): Handler.tree,
        ("POST", api + r"/paths-info/(?P<revision>[^/]+)"): Handler.paths_info,
        ("POST", api + r"/branch/(?P<branch>[^/]+)"): Handler.branch,
        ("POST", api + r"/preupload/(?P<revision>[^/]+)"): Handler.preupload,
        ("POST", api + r"/commit/(?P<revision>[^/]+)"): Handler.commit,
        ("POST", r"/(?P<kind>datasets/)?(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch"): Handler.lfs_batch,
        ("PUT", r"/upload/(?P<kind>\w+)/(?P<repo>[^/]+/[^/]+)/(?P<oid>[0-9a-f]{64})"): Handler.upload,
        (
            "GET",
            r"/(?P<kind>datasets/)?(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)",
        ): Handler.resolve,
    }
    return Handler
