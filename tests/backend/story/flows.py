# SPDX-License-Identifier: Apache-2.0
"""The Prefect part: it writes an invoice. Nothing here knows of auditspan."""

import os
import sys
from pathlib import Path

from prefect import flow, task


@task
def write(number: int) -> None:
    Path(os.environ["SHOP_INVOICES"], f"{number}.txt").write_text(f"invoice {number}\n")


@flow
def invoice(number: int) -> None:
    write(number)


if __name__ == "__main__":
    invoice(int(sys.argv[1]))
