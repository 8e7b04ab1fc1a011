# SPDX-License-Identifier: Apache-2.0
"""The registry of attributes and event types, and what is derived from it. Not used by an audited process."""
