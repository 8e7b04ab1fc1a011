# SPDX-License-Identifier: Apache-2.0
"""Second places: where checkpoints go that the host which signs them must not be able to change afterwards.

``archive``    keeps every checkpoint: a file that is only appended to, a folder, or any object store
``client``     asks a witness for its cosignature (C2SP tlog-witness)
``server``     is such a witness, for one site
``publisher``  gives each new checkpoint to all of them
``trusted``    reads back what they hold, for whoever verifies
"""
