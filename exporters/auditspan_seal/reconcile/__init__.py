# SPDX-License-Identifier: Apache-2.0
"""Reconciliation: compares Elasticsearch with the log, brings back what is missing, and keeps a receipt of it."""
