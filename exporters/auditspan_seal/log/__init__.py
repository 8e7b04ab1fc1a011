# SPDX-License-Identifier: Apache-2.0
"""The log: many writers, one sequencer, one log per directory.

States of an entry, and what survives a crash in each:

========== ================================================ =====================================================
recorded   its line is complete in a segment file            the death of the process (not yet a power cut)
sequenced  it has an index; entries and checkpoint are       a power cut
           written and synced to the log file
published  the same moment: a checkpoint is only shown       a power cut
           after it is synced
delivered  the Collector has accepted it                     everything; until then it is sent again
========== ================================================ =====================================================
"""
