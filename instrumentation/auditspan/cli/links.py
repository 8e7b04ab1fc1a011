# SPDX-License-Identifier: Apache-2.0
"""Links from what is printed to where it is seen in Kibana, if ``AUDITSPAN_KIBANA_URL`` says where that is."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterable
from urllib.parse import quote, urlencode, urlsplit

URL = "AUDITSPAN_KIBANA_URL"
_MARGIN = dt.timedelta(minutes=5)
_SHOWN = 3


def base() -> str | None:
    """Return the URL of the Kibana, with its space (``…/s/audit``) and without a user name; None: none is set."""
    parts = urlsplit(os.environ.get(URL, "").strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return None
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl().rstrip("/")


def of_traces(trace_ids: Iterable[str], start: int, end: int) -> list[dict[str, str]]:
    """Return the links to traces: to the waterfall of APM, and to the records in Discover.

    Args:
        trace_ids: of the traces.
        start: the begin of what is to be seen, nanoseconds since the epoch.
        end: its end.

    Returns:
        a mapping with ``trace_id``, ``apm`` and ``discover`` for each; nothing if no Kibana is named.
    """
    kibana = base()
    if kibana is None:
        return []
    since, until = _time(start, -_MARGIN), _time(end, _MARGIN)
    return [
        {
            "trace_id": trace_id,
            "apm": f"{kibana}/app/apm/link-to/trace/{quote(trace_id, safe='')}?"
            + urlencode({"rangeFrom": since, "rangeTo": until}),
            "discover": _discover(kibana, f'trace_id : "{trace_id}"', since, until),
        }
        for trace_id in trace_ids
    ]


def of_origin(origin: str) -> str | None:
    """Return the link to what a log says of itself; None: no Kibana is named."""
    kibana = base()
    if kibana is None:
        return None
    return _discover(kibana, f'attributes.audit.log.origin : "{origin}"', "now-30d", "now", "auditspan-log")


def of_dashboard(name: str) -> str | None:
    """Return the link to a dashboard; None: no Kibana is named."""
    kibana = base()
    return None if kibana is None else f"{kibana}/app/dashboards#/view/{_named(kibana, name)}"


def lines(links: list[dict[str, str]]) -> list[str]:
    """Return links as lines for people; of many only the first."""
    found = [line for link in links[:_SHOWN] for line in (f"trace    {link['apm']}", f"Discover {link['discover']}")]
    return found + ([f"… and {len(links) - _SHOWN} more traces; --json has them"] if len(links) > _SHOWN else [])


def _discover(kibana: str, query: str, since: str, until: str, view: str = "auditspan-records") -> str:
    name = _named(kibana, view)
    # Rison, the notation of Kibana's URLs: `!` escapes `!` and `'`. Older versions read `index`, newer `dataSource`.
    text = query.replace("!", "!!").replace("'", "!'")
    general = f"(time:(from:'{since}',to:'{until}'))"
    own = f"(dataSource:(dataViewId:'{name}',type:dataView),index:'{name}',query:(language:kuery,query:'{text}'))"
    safe = "()!:,'"
    return f"{kibana}/app/discover#/?_g={quote(general, safe=safe)}&_a={quote(own, safe=safe)}"


def _named(kibana: str, name: str) -> str:
    """Return the id of one of our objects in the space that a URL names: see `auditspan.kibana.objects.Names`."""
    space = kibana.rpartition("/s/")[2] if "/s/" in kibana else ""
    return f"{name}-{space}" if space else name


def _time(nanoseconds: int, margin: dt.timedelta) -> str:
    when = dt.datetime.fromtimestamp(nanoseconds / 1e9, tz=dt.timezone.utc) + margin
    return when.isoformat(timespec="seconds").replace("+00:00", "Z")
