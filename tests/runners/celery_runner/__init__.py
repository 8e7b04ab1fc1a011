# SPDX-License-Identifier: Apache-2.0
"""Celery for real: workers, beat and senders as processes, on a real Redis."""
