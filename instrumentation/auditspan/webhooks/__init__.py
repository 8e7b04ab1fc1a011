# SPDX-License-Identifier: Apache-2.0
"""Webhook handlers and signature verifiers: one file per library."""
