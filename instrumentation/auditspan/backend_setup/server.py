# SPDX-License-Identifier: Apache-2.0
"""Asks an Elasticsearch, of whichever version, and returns what it answers: a refusal is an answer, too."""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final
from urllib.parse import quote

from auditspan_seal.errors import SourceError

# Both majors know this form of requests; the client's own is that of its major, which an older server refuses.
_JSON: Final = "application/vnd.elasticsearch+json; compatible-with=8"
_NO_HANDLER: Final = ("no handler found for uri", "Incorrect HTTP method for uri")


@dataclass(frozen=True)
class Answer:
    """What Elasticsearch answered.

    Attributes:
        status: HTTP status.
        body: the JSON value.
    """

    status: int
    body: Any

    @property
    def done(self) -> bool:
        """Whether it was done."""
        return self.status < 300

    @property
    def refused(self) -> bool:
        """Whether who asked may not."""
        return self.status in (401, 403)

    @property
    def absent(self) -> bool:
        """Whether this Elasticsearch has no such API."""
        error = self.body.get("error") if isinstance(self.body, dict) else self.body
        return self.status >= 400 and isinstance(error, str) and error.startswith(_NO_HANDLER)

    @property
    def reason(self) -> str:
        """Why not, in a line."""
        error = self.body.get("error", self.body) if isinstance(self.body, dict) else self.body
        if isinstance(error, dict):
            causes = error.get("root_cause") or [error]
            error = causes[0].get("reason") or error.get("type")
        return f"HTTP {self.status}: {' '.join(str(error).split())[:300]}"


class Server:
    """An Elasticsearch; use it as a context manager.

    Args:
        url: may hold user name and password.
        api_key: an API key ("encoded" form); None: what the URL says.
        login: user name and password, instead of those of the URL.

    Raises:
        SourceError: the client library is not installed, or the URL is none.
    """

    def __init__(self, url: str, api_key: str | None = None, login: tuple[str, str] | None = None) -> None:
        try:
            from elasticsearch import Elasticsearch
        except ImportError:
            raise SourceError(
                "The Elasticsearch client is not installed.", "Run `pip install 'auditspan[elasticsearch]'`."
            ) from None
        self.place = without_password(url)
        authority = os.environ.get("AUDITSPAN_ELASTICSEARCH_CA_FILE")
        more: dict[str, Any] = {"ca_certs": authority} if authority and url.startswith("https:") else {}
        if api_key or login:
            url = self.place
            more |= {"api_key": api_key} if api_key else {"basic_auth": login}
        try:
            self._client: Any = Elasticsearch(url, request_timeout=30, max_retries=1, **more)
        except (ValueError, OSError) as error:
            raise SourceError(
                f"{self.place!r} is not the URL of an Elasticsearch that can be used: {error}.",
                "Give it as http://host:9200; a private certificate authority as AUDITSPAN_ELASTICSEARCH_CA_FILE.",
            ) from None

    @classmethod
    def of_environment(cls, url: str) -> Server:
        """Connect with the API key ``ELASTIC_API_KEY`` if that is set, else with what the URL says."""
        return cls(url, api_key=os.environ.get("ELASTIC_API_KEY") or None)

    def __enter__(self) -> Server:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def ask(self, method: str, path: str, body: Any = None) -> Answer:
        """Send one request.

        Args:
            method: HTTP method.
            path: with its query.
            body: a JSON value.

        Raises:
            SourceError: Elasticsearch does not answer.
        """
        from elasticsearch import ApiError, TransportError
        from elasticsearch.exceptions import UnsupportedProductError

        headers = {"accept": _JSON}
        if body is not None:
            headers["content-type"] = _JSON
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what a server warns of is said to whoever reads its log
                found = self._client.perform_request(method, path, headers=headers, body=body)
            return Answer(found.meta.status, found.body)
        except UnsupportedProductError:
            raise SourceError(f"{self.place} is not an Elasticsearch.", "Look at the URL.") from None
        except ApiError as error:
            return Answer(error.status_code, _parsed(error.body))
        except TransportError as error:
            raise SourceError(
                f"Elasticsearch at {self.place} does not answer: {error.message}.",
                "See that it runs, that the URL is right, and AUDITSPAN_ELASTICSEARCH_CA_FILE if its certificate is of "
                "a private authority.",
            ) from None

    def get(self, path: str) -> Any:
        """Return what there is; None: there is no such thing.

        Raises:
            SourceError: Elasticsearch does not answer, or refuses.
        """
        answer = self.ask("GET", path)
        if answer.status == 404 or answer.absent:
            return None
        return self._expect(answer, f"read {path.partition('?')[0]}")

    def expect(self, method: str, path: str, what: str) -> Any:
        """Send a request that must be answered with success; returns the JSON value.

        Args:
            method: HTTP method.
            path: with its query.
            what: what it is for, for the message: "read roles".

        Raises:
            SourceError: Elasticsearch does not answer, or refuses.
        """
        return self._expect(self.ask(method, path), what)

    def _expect(self, answer: Answer, what: str) -> Any:
        if answer.done:
            return answer.body
        if answer.refused:
            raise SourceError(
                f"This account may not {what}: {answer.reason}",
                "Use one with the role auditspan_administrator (roles: manage_security, too); an API key as "
                "ELASTIC_API_KEY.",
            )
        raise SourceError(f"Elasticsearch at {self.place} does not {what}: {answer.reason}", "See what it says there.")


def named(name: str) -> str:
    """Return a name as it stands in a path."""
    return quote(name, safe="@*")


def without_password(url: str) -> str:
    """Return a URL as it may be shown."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}".rstrip("/")


def _parsed(body: Any) -> Any:
    if isinstance(body, (str, bytes)):
        try:
            return json.loads(body)
        except ValueError:
            return body if isinstance(body, str) else body.decode(errors="replace")
    return body
