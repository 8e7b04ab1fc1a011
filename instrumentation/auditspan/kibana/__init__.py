# SPDX-License-Identifier: Apache-2.0
"""What Kibana shows of audit records: data views, saved searches, dashboards, alert rules.

`dashboards` says what is shown, in plain data; `panels` turns a panel into the Lens object that Kibana draws and into
the Elasticsearch query that Lens asks for it, so that tests can run it; `rules` does the same for alert rules;
`objects` makes the files of them, and `install` brings them into a Kibana. docs/kibana.md is for whoever uses them.

``python -m auditspan.kibana`` writes ``collector-config/kibana``.
"""
