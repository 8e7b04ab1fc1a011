# SPDX-License-Identifier: Apache-2.0
"""A process of the soak run: ends audit spans until it has ended so many, or its input ends.

It is never far ahead of delivery.
``python -m tests.benchmarks.soak_writer RECORDS AHEAD``
"""

from __future__ import annotations

import json
import sys
import threading
import time

from opentelemetry.sdk.trace import TracerProvider

from auditspan import boot
from auditspan_seal.delivery import Delivery
from tests.records import audit_attributes

_LOOK = 2_000  # records between looks at how far delivery is


def main(records: int, ahead: int) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    log = boot.activate(provider)
    tracer = provider.get_tracer("soak", "1.0")
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    fixed, ended = audit_attributes(), 0
    while ended < records and not stop.is_set():
        for _ in range(min(_LOOK, records - ended)):
            tracer.start_span("update order", attributes=fixed | {"number": ended, "target": f"order {ended}"}).end()
            ended += 1
        while 2 * ended - Delivery.load(log.directory.delivery).size > ahead and not stop.is_set():
            time.sleep(0.2)  # there is one more like this
    provider.shutdown()
    assert log.lost == 0
    print(json.dumps({"ended": ended}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
