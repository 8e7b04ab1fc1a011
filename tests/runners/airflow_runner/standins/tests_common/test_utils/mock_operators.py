# SPDX-License-Identifier: Apache-2.0
"""An operator's link."""

from __future__ import annotations

from typing import Any

from airflow.sdk import BaseOperatorLink


class AirflowLink(BaseOperatorLink):
    """The link that the tests expect."""

    name = "airflow"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        return "https://airflow.apache.org"
