# SPDX-License-Identifier: Apache-2.0
"""The Celery part: its task runs a Prefect flow, which is in another environment. Nothing here knows of auditspan."""

import os
import shlex
import subprocess

from celery import Celery

app = Celery("shop", broker=os.environ["SHOP_REDIS"])
app.conf.update(task_default_queue=os.environ["SHOP_QUEUE"], broker_connection_retry_on_startup=True)


@app.task(name="shop.bill")
def bill(number: int) -> None:
    subprocess.run([*shlex.split(os.environ["SHOP_FLOW"]), str(number)], check=True)
