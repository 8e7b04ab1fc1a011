# SPDX-License-Identifier: Apache-2.0
"""Workflow runners for real, each in an environment of its own: they cannot share one. See `environments.py`."""
