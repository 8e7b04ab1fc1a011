# SPDX-License-Identifier: Apache-2.0
"""A second place for checkpoints."""
