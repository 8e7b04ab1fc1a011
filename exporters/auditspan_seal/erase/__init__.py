# SPDX-License-Identifier: Apache-2.0
"""Erasing personal values: from the log on disk, from Elasticsearch, and on record."""
