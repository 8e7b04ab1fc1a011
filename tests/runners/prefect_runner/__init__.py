# SPDX-License-Identifier: Apache-2.0
"""Prefect 3 for real: in this process with its own test harness, and with a server, a runner and children."""
