# SPDX-License-Identifier: Apache-2.0
"""All errors that auditspan raises on purpose.

::

    AuditspanError
      + FormatError            bytes that are not what they should be
      |   + MalformedNote
      |   + MalformedStatement
      |   + MalformedLog
      |   + MalformedTree
      |   + MalformedKeyChange
      |   + MalformedPolicy
      |   + MalformedMessage
      + KeyFileError           a key that cannot be used
      + SignerError            a command that does not sign as it should
      + DirectoryError         a log directory that cannot be read or written
      |   + OverBudget         it uses more disk than it may, and the policy is to refuse records
      + SourceError            a place to read from that does not answer or cannot be understood
      + SecondPlaceError       an archive or witness that checkpoints cannot be given to
      |   + Contradiction      it holds something that this log does not continue
      + NotActive              auditing could not start
      + KibanaError            dashboards and rules that a Kibana does not take (auditspan.kibana)
      + DevStackError          the development stack (auditspan.devstack) could not be had or started
"""

from __future__ import annotations


class AuditspanError(Exception):
    """What happened, and what to do about it.

    Args:
        what: one sentence: what happened and what it means.
        advice: one sentence: what to do.
    """

    def __init__(self, what: str, advice: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.what}\n  What to do: {self.advice}" if self.advice else self.what


class FormatError(AuditspanError):
    """Bytes that are not what they should be."""


class MalformedNote(FormatError):
    """Not a signed note or checkpoint (C2SP signed-note, tlog-checkpoint)."""


class MalformedStatement(FormatError):
    """Not a statement."""


class MalformedLog(FormatError):
    """Not a line of a log file or segment."""


class MalformedTree(FormatError):
    """Hashes that cannot belong to a tree of the given size."""


class MalformedKeyChange(FormatError):
    """Not a rotation or revocation of a key, or not certified by the keys it names."""


class MalformedPolicy(FormatError):
    """Not a policy of logs and witnesses (C2SP tlog-policy)."""


class MalformedMessage(FormatError):
    """Not a request to a witness, or not its answer (C2SP tlog-witness)."""


class KeyFileError(AuditspanError):
    """A key that cannot be used: absent, unreadable, too open, of the wrong kind."""


class SignerError(AuditspanError):
    """A command that does not sign as it should: fails, hangs, or answers with something else than a signature."""


class DirectoryError(AuditspanError):
    """A log directory that cannot be read or written."""


class OverBudget(DirectoryError):
    """A log directory uses more disk than it may, and the policy is to refuse records."""


class SourceError(AuditspanError):
    """A place to read documents from that does not answer or cannot be understood."""


class SecondPlaceError(AuditspanError):
    """An archive or witness that checkpoints cannot be given to, or that does not answer as it should."""


class Contradiction(SecondPlaceError):
    """A second place holds a checkpoint that this log does not continue: one of the two was set back or rewritten."""


class NotActive(AuditspanError):
    """Auditing could not start in this process."""
