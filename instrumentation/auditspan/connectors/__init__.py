# SPDX-License-Identifier: Apache-2.0
"""No-code connectors: one file per library."""
