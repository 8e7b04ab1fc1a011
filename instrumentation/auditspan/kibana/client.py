# SPDX-License-Identifier: Apache-2.0
"""Kibana over HTTP, as far as it is needed here; every failure says what to do."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import requests

from auditspan.kibana.errors import (
    KibanaError,
    NotTakenByKibana,
    RefusedByKibana,
    UnreachableKibana,
    UnsuitableKibana,
)
from auditspan.kibana.objects import DEFAULT_SPACE, Names, Object, ndjson

URL = "AUDITSPAN_KIBANA_URL"
API_KEY = "KIBANA_API_KEY"
OLDEST = (8, 19)
_TIMEOUT = 60.0


class Kibana:
    """One space of a Kibana.

    Args:
        url: its address; user name and password may stand in it. An API key is taken from ``KIBANA_API_KEY`` or
            ``ELASTIC_API_KEY`` (the "encoded" form).
        names: the ids in the space.
        ca_file: certificates of a private authority.

    Raises:
        KibanaError: the URL is none.
    """

    def __init__(self, url: str, names: Names, ca_file: str | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise KibanaError(f"{url!r} is no URL of a Kibana.", "Give one like https://kibana.example:5601.")
        self.url = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl().rstrip("/")
        self._base = self.url if names.space == DEFAULT_SPACE else f"{self.url}/s/{names.space}"
        self._session = requests.Session()
        self._session.trust_env = False  # neither a proxy nor a .netrc: where to and as whom is said by the user
        self._session.verify = ca_file or True
        self._session.headers.update({"kbn-xsrf": "auditspan", "elastic-api-version": "2023-10-31"})
        if parts.username is not None:
            self._session.auth = (unquote(parts.username), unquote(parts.password or ""))
        elif key := os.environ.get(API_KEY) or os.environ.get("ELASTIC_API_KEY"):
            self._session.headers["authorization"] = f"ApiKey {key}"

    def version(self) -> str:
        """Return the version of the Kibana.

        Raises:
            KibanaError: it does not answer, or is older than 8.19.
        """
        answer = self._ask("GET", "/api/status", {200, 503})
        try:
            number = str(answer.json()["version"]["number"])
            known = tuple(int(part) for part in number.partition("-")[0].split(".")[:2])
        except (ValueError, KeyError, TypeError):
            raise UnreachableKibana(
                f"What answers at {self.url} is no Kibana, or tells these credentials no version.",
                f"Check the URL and its path; and that {API_KEY} is set, or a user is in the URL.",
            ) from None
        if known < OLDEST:
            raise UnsuitableKibana(
                f"{self.url} is Kibana {number}; its dashboards cannot show these.", "Kibana 8.19 or newer is needed."
            )
        return number

    def view(self, name: str) -> Object | None:
        """Return a data view; None: there is none."""
        answer = self._ask("GET", f"/api/data_views/data_view/{quote(name)}", {200, 404})
        return dict(self._content(answer)["data_view"]) if answer.status_code == 200 else None

    def put_view(self, name: str, said: Object, exists: bool) -> None:
        """Make a data view, or change what is said of it and leave the rest."""
        if exists:
            self._ask("POST", f"/api/data_views/data_view/{quote(name)}", {200}, json={"data_view": said})
        else:
            new = {"id": name, "allowNoIndex": True, **said}  # before the first record there is no index
            self._ask("POST", "/api/data_views/data_view", {200}, json={"data_view": new})

    def saved(self, kind: str, name: str) -> Object | None:
        """Return a saved object as Kibana exports it; None: there is none."""
        wanted = {"objects": [{"type": kind, "id": name}], "excludeExportDetails": True}
        answer = self._ask("POST", "/api/saved_objects/_export", {200, 400}, json=wanted)
        if answer.status_code == 400:
            if name not in answer.text:  # Kibana names what it has not found
                raise self._not_taken(answer)
            return None
        for line in answer.text.splitlines():
            found = json.loads(line)
            if found.get("id") == name:
                return dict(found)
        return None

    def put_saved(self, objects: list[Object]) -> None:
        """Import objects in place of those that are there.

        Raises:
            NotTakenByKibana: some of them were not taken; which and why is said.
        """
        files = {"file": ("auditspan.ndjson", ndjson(objects).encode(), "application/x-ndjson")}
        answer = self._ask("POST", "/api/saved_objects/_import", {200}, params={"overwrite": "true"}, files=files)
        content = self._content(answer)
        if not content.get("success") or content.get("successCount") != len(objects):
            wrong = [
                f"{item.get('type')} {item.get('id')}: {(item.get('error') or {}).get('type', 'unknown')}"
                for item in content.get("errors") or []
            ]
            moved = [item["id"] for item in content.get("successResults") or [] if item.get("destinationId")]
            raise NotTakenByKibana(
                f"Kibana took {content.get('successCount', 0)} of {len(objects)} objects: {'; '.join(wrong) or moved}.",
                "Mend what is named there, and install again: nothing is doubled by that.",
            )
        moved = [f"{item['id']} → {item['destinationId']}" for item in content.get("successResults") or []
                 if item.get("destinationId") not in (None, item.get("id"))]  # fmt: skip
        if moved:
            raise NotTakenByKibana(
                f"Kibana stored objects under other ids: {', '.join(moved)}.",
                "The ids are in use in another space. Delete those there, or install with --space.",
            )

    def rule(self, name: str) -> Object | None:
        """Return an alert rule; None: there is none."""
        answer = self._ask("GET", f"/api/alerting/rule/{quote(name)}", {200, 404})
        return self._content(answer) if answer.status_code == 200 else None

    def put_rule(self, name: str, body: Object, exists: bool) -> None:
        """Make an alert rule, or change it; whether it is enabled is left as it is."""
        if exists:
            fixed = ("rule_type_id", "consumer", "enabled")
            body = {key: item for key, item in body.items() if key not in fixed}
        self._ask("PUT" if exists else "POST", f"/api/alerting/rule/{quote(name)}", {200}, json=body)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def _ask(self, method: str, path: str, expected: Collection[int], **more: Any) -> requests.Response:
        # A redirect leads to a login page: that is no answer.
        try:
            answer = self._session.request(
                method, self._base + path, timeout=_TIMEOUT, allow_redirects=False, **more
            )  # fmt: skip
        except requests.exceptions.SSLError:
            raise UnreachableKibana(
                f"The certificate of {self.url} is not signed by an authority that is known here.",
                "Name the file with the certificate of yours by --ca-file.",
            ) from None
        except requests.RequestException as error:
            why = type(error).__name__
            raise UnreachableKibana(
                f"Kibana does not answer at {self.url}: {why}.", "Check the URL, and that Kibana runs."
            ) from None
        status = answer.status_code
        if status in expected:
            return answer
        if 300 <= status < 400:
            raise RefusedByKibana(
                f"Kibana at {self.url} sends us elsewhere (HTTP {status}): {answer.headers.get('location', '')[:200]}",
                f"If that is a login page, set {API_KEY}; if it is another path or host, give that as the URL.",
            )
        if status == 401:
            raise RefusedByKibana(
                f"Kibana at {self.url} does not know who asks (HTTP {status}).",
                f"Set {API_KEY} to an API key (encoded), or give https://user:password@host.",
            )
        if status == 403:
            raise RefusedByKibana(
                f"Kibana does not let these credentials do {method} {path} (HTTP 403): {_reason(answer)}",
                "Give the role the Kibana privileges Dashboard, Discover, Data View Management, Saved Objects "
                "Management and Stack Rules in the space.",
            )
        raise self._not_taken(answer)

    def _not_taken(self, answer: requests.Response) -> KibanaError:
        reason = _reason(answer)
        if "encrypt" in reason.lower():
            return UnsuitableKibana(
                f"Kibana cannot keep alert rules: {reason}",
                "Set xpack.encryptedSavedObjects.encryptionKey in kibana.yml, or install with --without-rules.",
            )
        return NotTakenByKibana(
            f"Kibana answered HTTP {answer.status_code} to {answer.request.method} "
            f"{urlsplit(str(answer.request.url)).path}: {reason}",
            "Mend what is named there, and install again: nothing is doubled by that.",
        )

    def _content(self, answer: requests.Response) -> Object:
        try:
            return dict(answer.json())
        except (ValueError, TypeError):
            raise UnreachableKibana(
                f"What answers at {self.url} is no Kibana: {answer.text[:80]!r}.", "Check the URL, and its path."
            ) from None


def _reason(answer: requests.Response) -> str:
    try:
        return str(answer.json()["message"])[:500]
    except (ValueError, KeyError, TypeError):
        return repr(answer.text[:200])
