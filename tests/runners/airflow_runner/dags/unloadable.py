# SPDX-License-Identifier: Apache-2.0
"""A DAG file that can be loaded by the DAG processor, and no longer where its task is to run."""

import os

from airflow.sdk import DAG, task

if os.environ.get("_AIRFLOW_PARSING_CONTEXT_DAG_ID") == "unloadable":
    raise ModuleNotFoundError("No module named 'only_there'")

with DAG("unloadable", schedule=None):

    @task
    def never():
        pass

    never()
