# SPDX-License-Identifier: Apache-2.0
"""From the log to an OTLP receiver: requests in each encoding, the settings of the environment, HTTP and gRPC.

What is sent when, and what is remembered of it, is decided in :mod:`auditspan_seal.ship`.
"""
