# SPDX-License-Identifier: Apache-2.0
"""A Collector and an Elasticsearch for development, tests and ``auditspan demo --stack``.

Each of the two is taken from where it can be had: a running one named by the environment, Docker, or parts built from
package registries. Example::

    from auditspan.devstack import Stack

    with Stack.start("/tmp/stack") as stack:
        print(stack.otlp_http_endpoint, stack.elasticsearch_url)

On the command line: ``python -m auditspan.devstack up``, ``down``, ``status``.
"""

from __future__ import annotations

from auditspan.devstack.errors import DevStackError
from auditspan.devstack.stack import Stack

__all__ = ["DevStackError", "Stack"]
