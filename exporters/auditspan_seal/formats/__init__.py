# SPDX-License-Identifier: Apache-2.0
"""Formats. Pure: no I/O, no clock, no randomness; every malformed input gives one typed error."""
