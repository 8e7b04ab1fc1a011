# SPDX-License-Identifier: Apache-2.0
"""Workflow runners: one file per library."""
