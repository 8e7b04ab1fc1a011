# SPDX-License-Identifier: Apache-2.0
"""Signature checks: what verifiers find while a webhook delivery is handled.

Where we look::

    standardwebhooks  Webhook.verify   returns: verified; raises: not verified       -> _verify (svix calls it, too)
    hmac              compare_digest   the check that people write by hand           -> _comparing

What is seen here goes to the current delivery (:mod:`auditspan.webhooks.delivery`). What is not seen stays *not
observed*. A comparison by hand counts only if one of the two values is the signature that the sender presented; it
says that this comparison held, not that the other value was computed as it should.

No value that is compared is kept, logged or recorded.
"""

from __future__ import annotations

import hmac
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from auditspan.capture import faults
from auditspan.capture.hooks import Call, Hook, Patch
from auditspan.capture.instrumentor import AuditInstrumentor, active
from auditspan.capture.recorder import Recorder
from auditspan.webhooks import delivery
from auditspan.webhooks.delivery import Delivery

Compare = Callable[..., bool]


class SignatureInstrumentor(AuditInstrumentor):
    """Observes signature checks; records nothing by itself."""

    name = "signatures"

    def patches(self, recorder: Recorder) -> Sequence[Patch]:
        """Return the patch table."""
        return (Patch("standardwebhooks.webhooks", "Webhook.verify", _verify, lazy=True),)

    def _instrument(self, **kwargs: Any) -> None:
        super()._instrument(**kwargs)
        if self.name in active:
            with faults.contained(f"{self.name}: patch hmac:compare_digest"):
                self._removals.append(_replace_compare_digest())


def _verify(call: Call) -> Hook:
    found = delivery.current()
    if found is None:
        return
    try:
        with delivery.carried(None):  # the comparisons inside are part of this one check
            result = yield
    except json.JSONDecodeError:
        found.observe(True, "standardwebhooks")  # the body is parsed only after its signature was found good
        raise
    except Exception:
        found.observe(False, "standardwebhooks")
        raise
    found.observe(True, "standardwebhooks")
    if isinstance(result, dict):
        found.name_event(result.get("type"))


def _replace_compare_digest() -> Callable[[], None]:
    """Put an observing function in the place of ``hmac.compare_digest``; return what takes it away again."""
    original = hmac.compare_digest
    compare_digest = _comparing(original)
    # `secrets` has the same function under its own name, and may have been imported before.
    modules = [module for module in (hmac, sys.modules.get("secrets")) if module is not None]
    for module in modules:
        if module.compare_digest is original:
            module.compare_digest = compare_digest  # type: ignore[attr-defined]

    def remove() -> None:
        compare_digest.observing = False  # type: ignore[attr-defined]  # copies that others made stay, and are silent
        for module in (hmac, sys.modules.get("secrets")):
            if module is not None and module.compare_digest is compare_digest:
                module.compare_digest = original  # type: ignore[attr-defined]

    return remove


def _comparing(original: Compare) -> Compare:
    # Not by the common hook: this function is called where every microsecond counts, mostly outside of any delivery.
    current = delivery.current

    def compare_digest(*args: Any, **kwargs: Any) -> bool:
        result = original(*args, **kwargs)  # first, and as it was called: its errors are raised as ever
        if current() is not None and compare_digest.observing:  # type: ignore[attr-defined]
            with faults.contained("signatures: hmac.compare_digest"):
                found = current()
                if found is not None and _is_about(found, args, original):
                    found.observe(result, "hmac.compare_digest")
        return result

    compare_digest.observing = True  # type: ignore[attr-defined]
    compare_digest.__doc__ = original.__doc__
    compare_digest.__qualname__ = "compare_digest"
    compare_digest.__module__ = "hmac"  # so that it can be pickled by name, like the original
    # For `inspect.signature`; an instance of a builtin has no signature that could be copied.
    compare_digest.__wrapped__ = original  # type: ignore[attr-defined]
    return compare_digest


def _is_about(found: Delivery, operands: tuple[Any, ...], compare: Compare) -> bool:
    """Tell whether one of the operands is the signature that the sender presented.

    The other operand is the expected signature, a secret until the sender knows it. Comparing it with `==`, or looking
    it up in a set, takes longer the more of it is right: a sender could measure its way to a valid signature, and
    only because we look on. So every comparison here is made by the original `compare_digest`, all of them are made,
    and the result leaves no trace in how long they took. Lengths are no secret: `compare_digest` tells them, too.
    """
    texts, raw = found.presented
    about = False
    for operand in operands:
        forms: Any = texts if isinstance(operand, str) else raw
        for form in forms:
            if len(form) == len(operand) and (isinstance(form, bytes) or form.isascii()):
                about |= compare(operand, form)
    return about
