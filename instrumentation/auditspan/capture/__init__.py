# SPDX-License-Identifier: Apache-2.0
"""The recorder and what every plugin shares. Knows OpenTelemetry, never the seal."""
