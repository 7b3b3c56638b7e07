"""Starts Patroni, with a mend: what it knows of the lock belongs to each thread.

Patroni's loop looks at the lock, finds that it has run out, asks the other members
whether it may lead, and takes the lock if that is still of the version it looked
at. It keeps the version in a field which every request that reads the cluster
writes, too (GET /cluster). One that comes in between brings the version of the lock
that another member has just taken: the loop takes that away, and what was written
to the other is lost (https://github.com/patroni/patroni/issues/3718). A Patroni
without such fields is not changed. The argument is Patroni's configuration.
"""

import ctypes
import sys
import threading

PR_SET_NAME = 15  # prctl(2)


class OfTheThread:
    """A field of which a thread that writes it has a value of its own; the others
    see that of the main thread, which Patroni's loop runs in."""

    def __init__(self):
        self.own = threading.local()
        self.main = None

    def __get__(self, dcs, owner=None):
        return getattr(self.own, "value", self.main)

    def __set__(self, dcs, value):
        if threading.current_thread() is threading.main_thread():
            self.main = value
        else:
            self.own.value = value


def main():
    ctypes.CDLL(None).prctl(PR_SET_NAME, b"patroni")  # the process is known by that
    sys.path.pop(0)  # where this file is, beside the data
    from patroni.__main__ import main as patroni
    from patroni.dcs.kubernetes import Kubernetes

    for field in ("_leader_resource_version", "_leader_observed_record", "_leader_observed_time"):
        setattr(Kubernetes, field, OfTheThread())
    return patroni()


# Not in the process that starts PostgreSQL for Patroni: that imports this file.
if __name__ == "__main__":
    sys.exit(main())
