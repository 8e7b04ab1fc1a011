# SPDX-License-Identifier: Apache-2.0
"""Context across boundaries that OpenTelemetry does not cross by itself."""
