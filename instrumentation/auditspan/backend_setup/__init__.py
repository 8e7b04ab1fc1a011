# SPDX-License-Identifier: Apache-2.0
"""Puts what auditspan needs into an Elasticsearch, and proves that it is in effect there.

:mod:`.artefacts` says what there should be, :mod:`.plan` compares it with what there is and refuses to weaken it,
:mod:`.apply` does it, :mod:`.check` asks the live system. :mod:`.server` is the way to Elasticsearch.
"""
