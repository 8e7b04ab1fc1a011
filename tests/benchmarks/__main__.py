# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.benchmarks``: measures, prints, and writes docs/benchmarks.md."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.benchmarks import backlog, queries, record, recording, shipping, soak, verify
from tests.benchmarks.harness import machine, table

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"


def main() -> None:
    parts = [
        "# Benchmarks",
        "What a part costs beside another, measured in one run: `make benchmark` writes this page. Ratios are paired,\n"
        "round by round, to the first line of each table; the times are CPU times of one machine, to give an idea.",
        f"Measured on {machine()}.",
    ]
    for title, text, cases in record.suites():
        print(f"{title} …", file=sys.stderr, flush=True)
        parts += [f"## {title}", text, table(record.measure(cases))]
    print(f"{recording.TITLE} …", file=sys.stderr, flush=True)
    parts += recording.page()
    print(f"{shipping.TITLE} …", file=sys.stderr, flush=True)
    parts += shipping.page()
    print(f"{backlog.TITLE} …", file=sys.stderr, flush=True)
    parts += backlog.page()
    print(f"{soak.TITLE} …", file=sys.stderr, flush=True)
    parts += soak.page()
    print(f"{verify.TITLE} …", file=sys.stderr, flush=True)
    parts += verify.page()
    print(f"{queries.TITLE} …", file=sys.stderr, flush=True)
    parts += queries.page()
    content = "\n\n".join(parts) + "\n"
    PAGE.write_text(content, encoding="utf-8")
    print(content)


if __name__ == "__main__":
    main()
