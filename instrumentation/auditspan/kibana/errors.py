# SPDX-License-Identifier: Apache-2.0
"""What can go wrong between the descriptions here and a Kibana."""

from __future__ import annotations

from auditspan_seal.errors import AuditspanError


class KibanaError(AuditspanError):
    """Kibana, or what is meant for it, is not as it must be."""


class DescriptionError(KibanaError):
    """A panel, search or rule is described in a way that means nothing; a mistake of whoever edits it."""


class ParametersError(KibanaError):
    """The file with what only the operator knows (approved scopes, quiet hours…) is not understood."""


class UnreachableKibana(KibanaError):
    """Nothing that is a Kibana answers at the URL."""


class RefusedByKibana(KibanaError):
    """Kibana does not let these credentials do it."""


class UnsuitableKibana(KibanaError):
    """The Kibana is too old, or lacks what is needed."""


class NotTakenByKibana(KibanaError):
    """Kibana answered, and did not take what it was given."""
