# SPDX-License-Identifier: Apache-2.0
"""The Airflow part: it sends a job to Celery. Nothing here knows of auditspan."""

import os

from airflow.sdk import DAG, task

with DAG("fulfil", schedule=None):

    @task
    def send(**context):
        from celery import Celery

        shop = Celery(broker=os.environ["SHOP_REDIS"])
        shop.send_task("shop.bill", args=[context["dag_run"].conf["number"]], queue=os.environ["SHOP_QUEUE"])

    send()
