# SPDX-License-Identifier: Apache-2.0
"""Stands for a package that Airflow's own tests want and that is not released: as much as `test_transparency.py` needs.

Written for that; nothing here is Airflow's.
"""
