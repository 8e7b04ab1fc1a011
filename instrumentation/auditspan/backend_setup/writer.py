# SPDX-License-Identifier: Apache-2.0
"""Can the Collector's account do more than add documents? It is tried, by requests that change nothing if it can.

They name a document that does not exist, under a sequence number that is never reached: what is allowed ends as a
conflict or as "no such document", what is not as 403.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any, Final

from auditspan.backend_setup import apply
from auditspan.backend_setup.artefacts import STREAMS
from auditspan.backend_setup.check_result import Check, failed, ok, unknown
from auditspan.backend_setup.server import Server, named

_NEVER: Final = "if_seq_no=9007199254740991&if_primary_term=1"
_ADVICE: Final = "Give it the role auditspan_writer and no other: docs/reference/elasticsearch-roles.md."
_TOO_MUCH: Final = (
    "read", "write", "index", "create", "delete", "delete_index", "manage", "maintenance", "all",
)  # fmt: skip
_CLUSTER: Final = ("all", "manage", "manage_index_templates", "manage_security", "manage_pipeline", "manage_ilm")


def checks(server: Server, writer: Server) -> Iterator[Check]:
    """Check that an account can write, and nothing else.

    Args:
        server: the Elasticsearch, as somebody who may see the streams.
        writer: the same, as the account to check.

    Raises:
        SourceError: Elasticsearch does not answer.
    """
    who = writer.ask("GET", "/_security/_authenticate")
    if who.status == 401:
        yield failed("writer", f"the Collector's account is not accepted: {who.reason}", "Renew its key or password.")
        return
    if not who.done:
        yield unknown("writer", "security is off, so there are no accounts", "Set xpack.security.enabled: true.")
        return
    yield _can_write(writer, str(who.body.get("username")))
    for stream in STREAMS.values():
        index = apply.write_index(server, stream)
        if index is not None:
            yield _tried(writer, stream, index)
        else:
            # Trying it would make the stream, because a writer may make one by its first document; and the answer
            # would be that of a stream, not that of its privileges.
            yield unknown(f"writer:{stream}", "there is no such data stream yet", "Send something, and check again.")
    yield _privileges(writer)


def _can_write(writer: Server, user: str) -> Check:
    wanted = {"names": list(STREAMS.values()), "privileges": ["create_doc"]}
    answer = writer.ask("POST", "/_security/user/_has_privileges", {"index": [wanted]})
    if answer.done and answer.body["has_all_requested"]:
        return ok("writer:writes", f"{user} may add documents to all streams")
    return failed("writer:writes", f"{user} may not add documents: records wait in the Collector", _ADVICE)


def _tried(writer: Server, stream: str, index: str) -> Check:
    """Try what a writer must not be able to do."""
    name, none = f"writer:{stream}", f"auditspan-check-{uuid.uuid4()}"
    place = f"/{named(index)}"
    attempts: dict[str, tuple[str, str, Any]] = {
        "search": ("POST", f"/{named(stream)}/_search?size=0", None),
        "get": ("GET", f"{place}/_doc/{none}", None),
        "update": ("POST", f"{place}/_update/{none}?{_NEVER}", {"doc": {}}),
        "overwrite": ("PUT", f"{place}/_doc/{none}?{_NEVER}", {"@timestamp": 0}),
        "delete": ("DELETE", f"{place}/_doc/{none}?{_NEVER}", None),
    }
    answers = {what: writer.ask(*request) for what, request in attempts.items()}
    can = [what for what, answer in answers.items() if not answer.refused]
    if can:
        return failed(name, f"the Collector's account can do more than add documents: {', '.join(can)}", _ADVICE)
    return ok(name, f"tried and refused: {', '.join(attempts)}")


def _privileges(writer: Server) -> Check:
    """Ask for what must not be tried."""
    wanted = {"cluster": _CLUSTER, "index": [{"names": list(STREAMS.values()), "privileges": _TOO_MUCH}]}
    answer = writer.ask("POST", "/_security/user/_has_privileges", wanted)
    if not answer.done:
        return unknown("writer:privileges", f"privileges are not told: {answer.reason}", _ADVICE)
    has = {item for item, given in answer.body["cluster"].items() if given}
    for privileges in answer.body["index"].values():
        has |= {item for item, given in privileges.items() if given}
    if has:
        return failed("writer:privileges", f"the Collector's account has {', '.join(sorted(has))}", _ADVICE)
    return ok("writer:privileges", "it can delete no index and change no template, mapping, role or setting")
