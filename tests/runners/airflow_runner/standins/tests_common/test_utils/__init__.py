# SPDX-License-Identifier: Apache-2.0
"""Helpers by the names that Airflow's own tests import."""
