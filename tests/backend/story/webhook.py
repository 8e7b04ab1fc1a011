# SPDX-License-Identifier: Apache-2.0
"""A shop's webhook: every order that is delivered has an Airflow run of its own. Nothing here knows of auditspan."""

import os
import sys

import httpx
import uvicorn
from fastapi import FastAPI

app = FastAPI()


@app.post("/hooks/orders")
def ordered(order: dict[str, int]) -> dict[str, str]:
    answer = httpx.post(
        f"{os.environ['SHOP_AIRFLOW']}/api/v2/dags/fulfil/dagRuns",
        json={"logical_date": None, "conf": order},
        headers={"Authorization": f"Bearer {os.environ['SHOP_TOKEN']}"},
        timeout=60,
    )
    answer.raise_for_status()
    return {"run": answer.json()["dag_run_id"]}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]))
