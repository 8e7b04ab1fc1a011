# SPDX-License-Identifier: Apache-2.0
"""The rules of :mod:`auditspan.registry.compare`: what each looks for, why it is one, and what to do instead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Rule:
    """One kind of change.

    Attributes:
        breaking: it breaks somebody.
        always: not even a raised major version allows it, because it can always be mended.
        what: the change.
        why: whom it breaks, and how; or why it breaks nobody.
        instead: what to do instead; empty if nothing is wrong.
    """

    breaking: bool
    what: str
    why: str
    instead: str = ""
    always: bool = False


RULES: Final[dict[str, Rule]] = {
    # -- attributes --------------------------------------------------------------------------------------------
    "attribute-removed": Rule(
        True,
        "An attribute is gone, or has another name.",
        "Searches, dashboards and alerts that name it find nothing from now on, and say nothing about it.",
        "Keep it, take it out of the levels where new records need not have it, and add the new name beside it.",
    ),
    "attribute-type": Rule(
        True,
        "An attribute has another type.",
        "One field with two types cannot be searched in Elasticsearch, and typed callers no longer compile.",
        "Add an attribute of the new type under a new name.",
    ),
    "attribute-format": Rule(
        True,
        "The format of an attribute was added, changed or taken away.",
        "A stricter one refuses values that were right; a laxer one gives readers values that they cannot parse.",
        "Add an attribute with the new format under a new name.",
    ),
    "attribute-unit": Rule(
        True,
        "An attribute has another unit.",
        "Old and new values are added up as if they meant the same.",
        "Add an attribute with the new unit under a new name.",
    ),
    "attribute-carrier": Rule(
        True,
        "An attribute moved between the signed record and the stored document.",
        "It is no longer signed, or the seal and the record both write it.",
        "Add an attribute with the other carrier under a new name.",
    ),
    "attribute-constant": Rule(
        True,
        "The name of an attribute in Python changed.",
        "Programs that use `schema.<NAME>` or the argument of a builder fail at the import or the call.",
        "Keep the `constant`.",
    ),
    "privacy-loosened": Rule(
        True,
        "The privacy class of an attribute is less strict.",
        "What people entrusted as erasable is from now on in signed bytes, messages and dashboards for good.",
        "Add an attribute of the looser class under a new name, with values that were collected for it.",
    ),
    "privacy-made-personal": Rule(
        True,
        "An attribute became personal.",
        "Readers that expect its value in the statement find a commitment, and after an erasure nothing.",
        "Let the policy of the installation treat it as personal (`privacy.personal` in docs/privacy.md).",
    ),
    "privacy-made-secret": Rule(
        True,
        "An attribute became a secret.",
        "It is never recorded again; who searches for it finds nothing.",
        "Let the policy of the installation drop it.",
    ),
    "since-changed": Rule(
        True,
        "The `since` of something that was there changed.",
        "It tells readers from when on they can expect it; history does not change.",
        "Put the old value back.",
        always=True,
    ),
    "since-of-new": Rule(
        True,
        "Something new does not say that it is new: its `since` is not the new version.",
        "Readers would expect it in records that cannot have it.",
        "Set `since` to the new version.",
        always=True,
    ),
    # -- enumerations ------------------------------------------------------------------------------------------
    "enumeration-removed": Rule(
        True,
        "An enumeration is gone, or has another name.",
        "Programs that use its class fail at the import.",
        "Keep it; one that no attribute uses does no harm.",
    ),
    "enumeration-value-removed": Rule(
        True,
        "A value of an enumeration is gone, or has another name.",
        "Programs that write it fail; searches for it find only the past.",
        "Keep the value, add the new one, and say in its brief which to use.",
    ),
    # -- event types -------------------------------------------------------------------------------------------
    "event-type-removed": Rule(
        True,
        "An event type is gone, or has another name.",
        "Programs that record it fail; searches, alerts and reports by event type miss what happens from now on.",
        "Keep it and add the new one; say in its brief which to use.",
    ),
    "event-carrier": Rule(
        True,
        "An event type moved between records and entries that the log writes itself.",
        "Its records have other attributes, and are written by somebody else.",
        "Add a new event type.",
    ),
    "default-action": Rule(
        True,
        "Another verb is the first of an event type.",
        "It is the default of the builder: programs that do not name a verb write another one than yesterday.",
        "Keep the first verb; add others behind it.",
    ),
    "attribute-removed-from-event": Rule(
        True,
        "An attribute is no longer part of an event type, or of every record.",
        "Programs that record it get records that are called nonconformant; the argument of the builder is gone.",
        "Leave it as optional.",
    ),
    "attribute-made-required": Rule(
        True,
        "An attribute is required in an event type, where it was not before.",
        "Programs that do not say it fail at the call, or write records that are called nonconformant.",
        "Make it recommended.",
    ),
    "required-of-every-record": Rule(
        True,
        "An attribute is required in every record, where it was not before.",
        "Every program that records anything is concerned.",
        "Make it recommended, or required in new event types only.",
    ),
    "requirement-lowered": Rule(
        True,
        "A required attribute is no longer required.",
        "Programs that write it go on. But who reads by it (an alert on it, a report grouped by it) misses the records "
        "without it, silently, and silence is what an audit log is there to prevent.",
        "Leave it required; where a value may be unknown, `unknown` is said.",
    ),
    "condition-added": Rule(
        True,
        "A new condition requires attributes.",
        "Records that were right are called nonconformant.",
        "Make the attributes recommended in the event types concerned, or add the condition for a new verb.",
    ),
    "condition-widened": Rule(
        True,
        "A condition holds for more values, or requires more attributes.",
        "Records that were right are called nonconformant.",
        "Make the attributes recommended in the event types concerned, or use a new verb.",
    ),
    "condition-narrowed": Rule(
        True,
        "A condition is gone, holds for fewer values, or requires less.",
        "As `requirement-lowered`: who reads by the attribute misses records without it.",
        "Leave the condition as it is.",
    ),
    # -- the registry ------------------------------------------------------------------------------------------
    "version-not-raised": Rule(
        True,
        "Something changed, but the version is not higher.",
        "`audit.schema.version` in a record must tell which registry it follows; one version has one meaning.",
        "Raise the version: the major one for a breaking change, the minor one for an addition, else the last one.",
        always=True,
    ),
    # -- what breaks nobody ------------------------------------------------------------------------------------
    "attribute-added": Rule(False, "A new attribute.", "Readers ignore what they do not know."),
    "event-type-added": Rule(
        False, "A new event type.", "Readers treat an event type that they do not know as one of no special meaning."
    ),
    "enumeration-added": Rule(False, "A new enumeration.", "Nothing uses it yet, or only new attributes do."),
    "enumeration-value-added": Rule(
        False, "A new value of an enumeration.", "Readers treat a value that they do not know as `unknown`."
    ),
    "attribute-added-to-event": Rule(
        False, "An attribute is recommended or optional in an event type that did not have it.", "Nobody has to say it."
    ),
    "recommendation-changed": Rule(
        False, "Recommended became optional, or the other way round.", "Neither has to be there."
    ),
    "privacy-tightened": Rule(
        False, "A public attribute became internal.", "Both are in the statement and in messages."
    ),
    "text-changed": Rule(
        False,
        "A brief, an example, a source, a usual verb, the template of a message or the brief of a condition changed.",
        "They are for people. A message is never parsed: each of its parts has an attribute of its own.",
    ),
    "crosswalk-changed": Rule(False, "A field of ECS or OCSF changed.", "It is advice for whoever converts records."),
}
