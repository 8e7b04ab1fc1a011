# SPDX-License-Identifier: Apache-2.0
"""A day at the back office of a small automation team, told by the program itself.

What connectors, runners and webhook handlers do is recorded without a code change. This program does what no library
can tell: it edits contacts, decides about payouts, changes settings and permissions, deploys a template. A few lines
of ``auditspan.action`` around each say who did what to what, why, and what changed.

    AUDITSPAN_DIR=/tmp/audit python examples/own-actions/operations.py /tmp/office
    auditspan runs /tmp/audit
"""

from __future__ import annotations

import csv
import hashlib
import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import auditspan

LIMIT = 1000  # a payout above it needs an approval


class Office:
    """Contacts in SQLite, everything else in JSON files of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.database = sqlite3.connect(folder / "contacts.sqlite")
        self.database.row_factory = sqlite3.Row
        self.database.execute("CREATE TABLE IF NOT EXISTS contact (id TEXT PRIMARY KEY, email TEXT, stage TEXT)")

    # -- data --------------------------------------------------------------------------------------------------
    def contact(self, key: str) -> dict[str, Any] | None:
        row = self.database.execute("SELECT * FROM contact WHERE id = ?", (key,)).fetchone()
        return dict(row) if row else None

    def create(self, key: str, email: str) -> None:
        with auditspan.action(
            "CREATE", target=key, target_type="crm.contact", actor="alice", after=lambda: self.contact(key)
        ):
            self.database.execute("INSERT INTO contact VALUES (?, ?, 'new')", (key, email))

    def update(self, key: str, stage: str) -> None:
        with auditspan.action(
            "UPDATE", target=key, target_type="crm.contact", actor="alice",
            before=lambda: self.contact(key), after=lambda: self.contact(key), rationale="won, ticket 4711",
        ):  # fmt: skip
            self.database.execute("UPDATE contact SET stage = ? WHERE id = ?", (stage, key))

    def delete(self, key: str) -> None:
        with auditspan.action(
            "DELETE", target=key, target_type="crm.contact", actor="alice", before=lambda: self.contact(key)
        ):
            self.database.execute("DELETE FROM contact WHERE id = ?", (key,))

    def export(self, to: Path) -> None:
        with auditspan.action(
            "EXPORT", target="contacts", target_type="crm.table", actor="report-service", actor_type="service",
            on_behalf_of="alice", data_destination=to.name,
        ) as done:  # fmt: skip
            rows = self.database.execute("SELECT * FROM contact").fetchall()
            with to.open("w", newline="") as file:
                csv.writer(file).writerows(rows)
            done.set("audit.data.count", len(rows))

    def load(self, source: Path) -> None:
        with auditspan.action("IMPORT", target="contacts", target_type="crm.table", data_source=source.name) as done:
            rows = list(csv.reader(source.open(newline="")))
            self.database.executemany("INSERT OR REPLACE INTO contact VALUES (?, ?, ?)", rows)
            done.set("audit.data.count", len(rows))

    # -- decisions ---------------------------------------------------------------------------------------------
    def pay(self, number: str, amount: int) -> bool:
        with auditspan.action(
            "EVALUATE", target=number, target_type="payout", policy_name="payouts", policy_version="3",
            policy_rule=f"amount <= {LIMIT}", rationale="the rule of the finance department",
            decision_path=[f"amount is {'within' if amount <= LIMIT else 'over'} the limit"],
            decision="allow" if amount <= LIMIT else "deny",
            remediation=None if amount <= LIMIT else "ask finance for an approval",
        ):  # fmt: skip
            return amount <= LIMIT

    def override(self, number: str) -> None:
        with auditspan.action(
            "OVERRIDE", target=number, target_type="payout", actor="bob", policy_name="payouts", policy_version="3",
            policy_rule=f"amount <= {LIMIT}", rationale="goodwill for a long outage",
            decision_path=["rule: deny", "finance: override"],
        ):  # fmt: skip
            self._put("payouts", {**self._get("payouts"), number: "paid"})

    # -- what decides how automations behave -------------------------------------------------------------------
    def configure(self, key: str, value: Any) -> None:
        with auditspan.action(
            "UPDATE", type="configuration.change", target="nightly-sync", target_type="workflow", actor="carol",
            configuration_key=key, before=lambda: self._get("settings"), after=lambda: self._get("settings"),
        ):  # fmt: skip
            self._put("settings", {**self._get("settings"), key: value})

    def grant(self, who: str, permission: str) -> None:
        with auditspan.action(
            "GRANT", target="nightly-sync", target_type="workflow", actor="carol", permission_subject_id=who,
            permission_granted=[permission],
            before=lambda: self._get("permissions"), after=lambda: self._get("permissions"),
        ):  # fmt: skip
            self._put("permissions", {**self._get("permissions"), who: permission})

    def change_policy(self, version: str, limit: int) -> None:
        with auditspan.action(
            "UPDATE", type="policy.change", target="payouts", target_type="policy", actor="bob",
            policy_name="payouts", policy_version=version, rationale="the old limit stopped one payout in ten",
            before=lambda: self._get("policy"), after=lambda: self._get("policy"),
        ):  # fmt: skip
            self._put("policy", {"version": version, "limit": limit})

    def deploy(self, template: str, version: str) -> None:
        with auditspan.action(
            "DEPLOY", target="invoice-sync", target_type="workflow", actor="carol", template_name=template,
            template_version=version, after=lambda: self._get("workflow"),
        ):  # fmt: skip
            self._put("workflow", {"template": template, "version": version})

    def install(self, package: Path, name: str, version: str) -> None:
        with auditspan.action(
            "INSTALL", target=name, target_type="connector", actor="carol", package_name=name,
            package_version=version,
            package_checksum=f"sha256:{hashlib.sha256(package.read_bytes()).hexdigest()}",
        ):  # fmt: skip
            (self.folder / package.name).write_bytes(package.read_bytes())

    def connect(self, source: str, target: str) -> None:
        with auditspan.action(
            "CONNECT", target="invoice-sync", target_type="workflow", actor="carol", wiring_from=source,
            wiring_to=target,
        ):  # fmt: skip
            self._put("wiring", {source: target})

    def change_key(self, old: str, new: str) -> None:
        with auditspan.action(
            "ROTATE", type="key.change", target="webhook-signing", target_type="key", actor="carol", key_id=old,
            key_successor_id=new, rationale="yearly rotation",
        ):  # fmt: skip
            self._put("keys", {"active": new, "retired": old})

    # -- the nightly run ---------------------------------------------------------------------------------------
    def night(self) -> None:
        """One run and what became of its parts, as a home-made runner would tell it."""
        with auditspan.action("EXECUTE", target="nightly-sync", target_type="workflow"):
            said: list[tuple[str, dict[str, Any]]] = [
                ("START", {"task_name": "load"}),
                ("RETRY", {"task_name": "load", "run_attempt": 1, "run_reason": "the server did not answer"}),
                ("SKIP", {"task_name": "mail", "run_reason": "there is nothing to send"}),
                ("CANCEL", {"task_name": "report", "run_reason": "called off by an operator"}),
                ("INTERRUPT", {"task_name": "archive", "run_reason": "its process was killed"}),
            ]
            for verb, details in said:
                kind = "workflow.execution.interrupted" if verb == "INTERRUPT" else None
                with auditspan.action(verb, type=kind, target=details["task_name"], target_type="task", **details):
                    pass

    # -- files -------------------------------------------------------------------------------------------------
    def _get(self, name: str) -> dict[str, Any]:
        path = self.folder / f"{name}.json"
        found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return found

    def _put(self, name: str, content: dict[str, Any]) -> None:
        (self.folder / f"{name}.json").write_text(json.dumps(content))


def main(folder: Path) -> None:
    office = Office(folder)
    with closing(office.database):
        office.create("c-1", "dora@example.com")
        office.update("c-1", "won")
        office.export(folder / "contacts.csv")
        office.load(folder / "contacts.csv")
        office.delete("c-1")
        if not office.pay("p-7", 1200):
            office.override("p-7")
        office.configure("retry.limit", 3)
        office.grant("erin@example.com", "workflow.edit")
        office.grant("frank@example.com", "workflow.view")
        office.change_policy("4", 1500)
        office.deploy("invoice-to-crm", "3")
        office.install(Path(__file__), "tap-office", "0.4.1")
        office.connect("tap-office", "target-crm")
        office.change_key("a1b2c3d4", "0d9e8f7a")
        office.night()
        left = office.contact("c-1")
        print(f"done: contact c-1 is {left or 'gone'}, payout p-7 is {office._get('payouts')['p-7']}")


if __name__ == "__main__":
    auditspan.install()
    main(Path(sys.argv[1]))
