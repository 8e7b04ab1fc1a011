# SPDX-License-Identifier: Apache-2.0
"""``python -m auditspan.cli``."""

from __future__ import annotations

import sys

from auditspan.cli import main

sys.exit(main())
