# SPDX-License-Identifier: Apache-2.0
"""What makes audit spans evidence: statements, the log, its checkpoints, delivery and verification.

Knows records, never the plugins. Layers, each of which may import only those before it::

    errors -> formats (pure) -> keys -> log (directory, segments, sequencer) -> ship -> service -> verify
"""
