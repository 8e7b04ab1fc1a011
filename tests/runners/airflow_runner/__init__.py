# SPDX-License-Identifier: Apache-2.0
"""The tests of the Airflow plugin: run inside an environment of their own, with Airflow in it."""
