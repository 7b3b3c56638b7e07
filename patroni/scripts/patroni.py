"""Starts Patroni, with two mends. The argument is Patroni's configuration. A Patroni
that has not what is mended here runs unchanged.

What it knows of the cluster belongs to each thread: Patroni's loop looks at the lock,
finds that it has run out, asks the other members whether it may lead, and takes the
lock if that is still of the version it looked at. It keeps the version in a field
which every request that reads the cluster writes, too (GET /cluster). One that comes
in between brings the version of the lock that another member has just taken: the loop
takes that away, and what was written to the other is lost
(https://github.com/patroni/patroni/issues/3718). The right to begin a new cluster is
taken by the same means.

What it sleeps for ends the sleep: in a switchover Patroni sleeps a second or two for
something that mostly happens within tenths of one, and clients wait as long.
"""

import ctypes
import sys
import threading
import time

PR_SET_NAME = 15  # prctl(2)
POLL = 0.1  # seconds

# Of patroni.dcs.kubernetes.Kubernetes.
OF_THE_THREAD = (
    "_leader_resource_version", "_leader_observed_record", "_leader_observed_time",  # the lock
    "_cluster", "_cluster_valid_till",  # all the rest
)


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


def is_led(variables):
    """Tells whether another member has the lock, as Patroni's watch of it says."""
    dcs = variables["self"].dcs
    lock = dcs._kinds.get(dcs.leader_path)
    return (lock.metadata.annotations or {}).get(dcs._LEADER, dcs._name) not in ("", dcs._name)


def is_copied(variables):
    """Tells whether those who may lead have all that the server wrote until its end."""
    return variables["self"].is_failover_possible(cluster_lsn=variables["checkpoint_location"])


class Time:
    """The time module of patroni.ha."""

    # The functions of patroni.ha that sleep, and what for.
    events = {
        "demote": is_led,  # the old primary, before it follows another
        "process_unhealthy_cluster": is_led,  # who is not named in a switchover
        "on_shutdown": is_copied,  # the old primary, before it gives the lock back
        "_on_shutdown": is_copied,  # the same when Patroni itself ends
    }

    def __getattr__(self, name):
        return getattr(time, name)

    def sleep(self, seconds):
        end = time.monotonic() + seconds
        caller = sys._getframe(1)
        happened = self.events.get(caller.f_code.co_name)
        try:
            while happened and time.monotonic() < end:
                if happened(caller.f_locals):
                    return
                time.sleep(POLL)
        except Exception:
            pass  # another Patroni: it sleeps as it always did
        time.sleep(max(0, end - time.monotonic()))


def main():
    ctypes.CDLL(None).prctl(PR_SET_NAME, b"patroni")  # the process is known by that
    sys.path.pop(0)  # where this file is, beside the data
    import patroni.postgresql  # before patroni.ha, which it imports
    import patroni.ha
    from patroni.__main__ import main as run
    from patroni.dcs.kubernetes import Kubernetes

    for field in OF_THE_THREAD:
        setattr(Kubernetes, field, OfTheThread())
    patroni.ha.time = Time()
    patroni.postgresql.STOP_POLLING_INTERVAL = POLL  # how often it looks whether the server has ended
    return run()


# Not in the process that starts PostgreSQL for Patroni: that imports this file.
if __name__ == "__main__":
    sys.exit(main())
