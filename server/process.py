"""What this process keeps from the rest of its machine: no core dump, no debugger, no library that tells secrets."""

from __future__ import annotations

import ctypes
import os
import resource
import sys

PR_SET_DUMPABLE = 4
TELLING = ("GRPC_TRACE", "GRPC_VERBOSITY")
"""Variables with which gRPC writes what it handles to stderr: whole headers, API keys among them."""


def keep_to_itself() -> None:
    """Before a secret is read. Its memory holds keys and tokens, its environment perhaps a client secret.

    Processes of the same user can neither attach to it nor read its files in /proc from now on; root still can. Raises
    OSError where the system does not let it.
    """
    for name in TELLING:
        os.environ.pop(name, None)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux" and ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE)")
