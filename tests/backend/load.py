# SPDX-License-Identifier: Apache-2.0
"""An application under load: ends spans at a steady rate until its input ends, and says how it fared.

    python load.py RATE [LEDGER] < /dev/stdin

Prints one line of JSON: how many spans it ended, and the longest time that it waited for one of them. The ledger, if
one is named, has the record ID of each span that was ended: the application's own word, apart from the log.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path

from opentelemetry.sdk.trace import TracerProvider

from auditspan import schema
from auditspan_seal.log.directory import default_path
from auditspan_seal.processor import AuditSpanProcessor
from auditspan_seal.service import AuditLog
from tests.records import audit_attributes


def main(rate: float, path: Path, ledger: Path) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(AuditSpanProcessor(AuditLog(path)))
    tracer = provider.get_tracer("load", "1.0")
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    ended, longest = 0, 0.0
    with ledger.open("a") as written:
        while not stop.is_set():
            attributes = audit_attributes(number=ended)
            span = tracer.start_span(f"record {ended}", attributes=attributes)
            begin = time.monotonic()
            span.end()
            longest = max(longest, time.monotonic() - begin)
            written.write(f"{attributes[schema.RECORD_ID]}\n")
            ended += 1
            time.sleep(1 / rate)
    begin = time.monotonic()
    provider.shutdown()
    print(json.dumps({"ended": ended, "longest": longest, "closing": time.monotonic() - begin}))


if __name__ == "__main__":
    main(float(sys.argv[1]), default_path(), Path(sys.argv[2] if len(sys.argv) > 2 else os.devnull))
