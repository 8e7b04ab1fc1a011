# SPDX-License-Identifier: Apache-2.0
"""A server that gives Kibana's documented answers: the newest Kibana in a package registry is 5.1.

It plays the parts of the saved objects, data view and alerting APIs that are used, keeps what it is given, and can be
told to fail. It knows two things that trip installers: an object's id is there once over all spaces, and rules, which
have secrets beside them, take no id but a random UUID.
"""

from __future__ import annotations

import email.parser
import email.policy
import json
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.serving import serving as serving_with

Answer = tuple[int, Any]


class FakeKibana:
    """One Kibana.

    Attributes:
        objects, views, rules: what it holds, by space and id.
        writes: the requests that changed something.
        refuse: (method, beginning of the path) → the answer to give instead.
    """

    def __init__(self, version: str = "8.19.4") -> None:
        self.version = version
        self.objects: dict[tuple[str, str], Any] = {}
        self.views: dict[tuple[str, str], Any] = {}
        self.rules: dict[tuple[str, str], Any] = {}
        self.writes: list[str] = []
        self.refuse: dict[tuple[str, str], Answer] = {}
        self.headers: list[dict[str, str]] = []

    def answer(self, method: str, path: str, headers: Any, body: bytes) -> Answer:
        self.headers.append({name.lower(): value for name, value in headers.items()})
        space, path = "default", path.partition("?")[0]
        if match := re.match(r"/s/([^/]+)(/.*)", path):
            space, path = match.groups()
        for (verb, begin), refusal in self.refuse.items():
            if method == verb and path.startswith(begin):
                return refusal
        if path == "/api/status":
            return 200, {"version": {"number": self.version}, "status": {"overall": {"level": "available"}}}
        if method in ("POST", "PUT") and "kbn-xsrf" not in self.headers[-1]:
            return 400, {"statusCode": 400, "message": "Request must contain a kbn-xsrf header."}
        if path.startswith("/api/data_views/data_view"):
            return self._view(method, space, path.removeprefix("/api/data_views/data_view").lstrip("/"), body)
        if path == "/api/saved_objects/_export":
            return self._export(space, json.loads(body))
        if path == "/api/saved_objects/_import":
            return self._import(space, headers["content-type"], body)
        if path.startswith("/api/alerting/rule/"):
            return self._rule(method, space, path.removeprefix("/api/alerting/rule/"), body)
        return 404, {"statusCode": 404, "message": "Not Found"}

    def _view(self, method: str, space: str, name: str, body: bytes) -> Answer:
        if method == "GET":
            found = self.views.get((space, name))
            return (200, {"data_view": found}) if found else (404, {"message": f"Saved object [{name}] not found"})
        said = json.loads(body)["data_view"]
        self.writes.append(f"view {name or said['id']}")
        if name:
            self.views[space, name] |= said
        elif any(known == said["id"] for _, known in self.views):
            return 409, {"message": "Saved object conflict"}
        else:
            self.views[space, said["id"]] = {"namespaces": [space], "fieldAttrs": {}, **said}
        return 200, {"data_view": self.views[space, name or said["id"]]}

    def _export(self, space: str, wanted: Any) -> Answer:
        lines = []
        for item in wanted["objects"]:
            found = self.objects.get((space, item["id"]))
            if found is None:
                missing = [{"id": item["id"], "type": item["type"], "error": {"statusCode": 404}}]
                return 400, {"message": "Error fetching objects to export", "attributes": {"objects": missing}}
            lines.append(json.dumps(found))
        return 200, "\n".join(lines)

    def _import(self, space: str, kind: str, body: bytes) -> Answer:
        parser = email.parser.BytesParser(policy=email.policy.HTTP)
        message = parser.parsebytes(f"content-type: {kind}\r\n\r\n".encode() + body)
        (part,) = (part for part in message.iter_parts() if part.get_param("name", header="content-disposition"))
        assert str(part.get_filename()).endswith(".ndjson")
        given = [json.loads(line) for line in part.get_content().decode().splitlines()]
        known = {name for where, name in (*self.views, *self.objects) if where == space} | {
            item["id"] for item in given
        }
        errors = [
            {"id": item["id"], "type": item["type"], "error": {"type": "missing_references"}}
            for item in given
            if any(reference["id"] not in known for reference in item["references"])
        ]
        if errors:
            return 200, {"success": False, "successCount": len(given) - len(errors), "errors": errors}
        results = []
        for item in given:
            result = {"id": item["id"], "type": item["type"]}
            if any(name == item["id"] and where != space for where, name in self.objects):
                result["destinationId"] = str(uuid.uuid4())
            # What an import does to old objects: it brings them up to date.
            self.objects[space, result.get("destinationId", item["id"])] = item | {"typeMigrationVersion": "10.3.0"}
            results.append(result)
            self.writes.append(f"object {item['id']}")
        return 200, {"success": True, "successCount": len(given), "successResults": results}

    def _rule(self, method: str, space: str, name: str, body: bytes) -> Answer:
        found = self.rules.get((space, name))
        if method == "GET":
            return (200, found) if found else (404, {"message": f"Saved object [alert/{name}] not found"})
        said = json.loads(body)
        if method == "POST":
            if str(uuid.UUID(name)) != name or uuid.UUID(name).version != 4:
                return 400, {"message": "Predefined IDs are not allowed … unless the ID is a UUID."}
            if any(known == name for _, known in self.rules):
                return 409, {"message": "version conflict"}
            found = {"id": name, "enabled": True, **said}
        else:
            if unknown := said.keys() & {"rule_type_id", "consumer", "enabled"}:
                return 400, {"message": f"[request body.{unknown.pop()}]: definition for this key is missing"}
            if found is None:
                return 404, {"message": "not found"}
            found = found | said
        self.writes.append(f"rule {found['name']}")
        self.rules[space, name] = found
        return 200, found


@contextmanager
def serving(kibana: FakeKibana) -> Iterator[str]:
    """Serve it on loopback as long as the ``with`` block; gives its URL."""

    class Handler(BaseHTTPRequestHandler):
        def _do(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            status, content = kibana.answer(self.command, self.path, self.headers, body)
            data = content.encode() if isinstance(content, str) else json.dumps(content).encode()
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("location", "/login")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = _do

        def log_message(self, *_: Any) -> None:
            pass

    with serving_with(Handler) as url:
        yield url
