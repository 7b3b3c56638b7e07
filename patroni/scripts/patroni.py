"""Starts Patroni, with some mends. The argument is Patroni's configuration. A Patroni
that has not what is mended here runs unchanged.

What it knows of the cluster belongs to each thread. Patroni's loop looks at the lock,
finds that it has run out, asks the other members whether it may lead, and takes the
lock if that is still of the version it looked at. It keeps the version in a field
which every request that reads the cluster writes, too (GET /cluster). One that comes
in between brings the version of the lock that another member has just taken: the loop
takes that away, and what was written to the other is lost
(https://github.com/patroni/patroni/issues/3718). The right to begin a new cluster is
taken by the same means.

It sleeps as long as there is something to wait for. In a switchover Patroni sleeps a
second or two for what mostly happens within tenths of one, and clients wait as long.
The old primary, though, comes back a while after another has been promoted: clients
that were not told yet still find it at its address, and a replica would tell them that
it takes no writes.

It looks at the lock when that runs out, and not in its next loop.

It tells a server whom to follow that was started while nobody led. Such a server may
lack what makes its data consistent, after a rewind for instance, and lets nobody in:
Patroni takes it for one that begins to follow whomever it followed before.
"""

import ctypes
import sys
import threading
import time

PR_SET_NAME = 15  # prctl(2)
POLL = 0.1  # seconds
ALONE = 5  # seconds that a server may take to start before Patroni looks whom it may need
PROMOTION = 2  # seconds that the old primary waits for it; then it may be needed for it

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


def leader(ha):
    """Returns the name of the other member that has the lock, as Patroni's watch of it
    says; or None."""
    lock = ha.dcs._kinds.get(ha.dcs.leader_path)
    name = (lock.metadata.annotations or {}).get(ha.dcs._LEADER)
    return name if name != ha.dcs._name else None


def is_promoted(ha):
    member = ha.cluster.get_member(leader(ha), False)
    return member is not None and ha.fetch_node_status(member).in_recovery is False


def wait(seconds, happened):
    """Waits until it has happened, at most so long; tells whether it has."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if happened():
            return True
        time.sleep(POLL)
    return False


def for_the_lock(ha, seconds, variables):
    """Who is not named in a switchover waits until another has the lock, which may have
    run out with the name of a dead one."""
    dead = (ha.dcs._leader_observed_record or {}).get(ha.dcs._LEADER)
    wait(seconds, lambda: leader(ha) not in (None, dead))


def for_the_others(ha, seconds, variables):
    """The old primary waits, before it gives the lock back, until those who may lead
    have all that it wrote."""
    wait(seconds, lambda: ha.is_failover_possible(cluster_lsn=variables["checkpoint_location"]))


def for_the_clients(ha, seconds, variables):
    """The old primary waits, before it follows, until clients know the new one. If it is
    the only one who can confirm commits, clients wait for it."""
    led = wait(seconds, lambda: leader(ha))
    if led and len(ha.cluster.members) > 2 and wait(PROMOTION, lambda: is_promoted(ha)):
        time.sleep(seconds)


class Time:
    """The time module of patroni.ha."""

    # What its functions sleep for.
    waits = {
        "process_unhealthy_cluster": for_the_lock,
        "on_shutdown": for_the_others,
        "_on_shutdown": for_the_others,  # the same when Patroni itself ends
        "demote": for_the_clients,
    }

    def __getattr__(self, name):
        return getattr(time, name)

    def sleep(self, seconds):
        end = time.monotonic() + seconds
        caller = sys._getframe(1)
        try:
            return self.waits[caller.f_code.co_name](caller.f_locals["self"], seconds, caller.f_locals)
        except Exception:
            pass  # it is none of them, or of another Patroni
        time.sleep(max(0, end - time.monotonic()))


def watch(kubernetes, version, timeout, patronis):
    """Instead of Kubernetes.watch, which is patronis: waits for a change of the lock,
    and not beyond its end."""
    try:
        left = kubernetes._leader_observed_time + kubernetes.ttl - time.time()
    except Exception:
        left = 0  # it has seen no lock yet, or is another Patroni
    if not 0 < left < timeout:
        return patronis(kubernetes, version, timeout)
    patronis(kubernetes, None, left + POLL / 2)
    return True


class Recovery:
    """Whether the server was told to follow anybody."""

    def __init__(self, handler, postgresql):
        self.write, self.check, self.begin = handler.write_recovery_conf, handler.check_recovery_conf, postgresql.start
        self.alone = False

    def start(self, postgresql, timeout=None, *rest, **named):
        """Does not wait for it long when it may need somebody."""
        return self.begin(postgresql, ALONE if self.alone and timeout is None else timeout, *rest, **named)

    def write_recovery_conf(self, handler, parameters):
        self.alone = not parameters.get("primary_conninfo")
        self.write(handler, parameters)

    def check_recovery_conf(self, handler, member):
        """Returns whether it has to change, and whether that takes a restart."""
        change, restart = self.check(handler, member)
        if self.alone and not change and handler._postgresql.is_starting():
            change = bool(handler.build_recovery_params(member).get("primary_conninfo"))
        return change, restart


def main():
    ctypes.CDLL(None).prctl(PR_SET_NAME, b"patroni")  # the process is known by that
    sys.path.pop(0)  # where this file is, beside the data
    import patroni.postgresql  # before patroni.ha, which it imports
    import patroni.ha
    from patroni.__main__ import main as run
    from patroni.dcs.kubernetes import Kubernetes
    from patroni.postgresql.config import ConfigHandler

    for field in OF_THE_THREAD:
        setattr(Kubernetes, field, OfTheThread())
    patroni.ha.time = Time()
    patroni.postgresql.STOP_POLLING_INTERVAL = POLL  # how often it looks whether the server has ended
    patronis = Kubernetes.watch
    Kubernetes.watch = lambda self, version, timeout: watch(self, version, timeout, patronis)
    recovery = Recovery(ConfigHandler, patroni.postgresql.Postgresql)
    ConfigHandler.write_recovery_conf = lambda self, parameters: recovery.write_recovery_conf(self, parameters)
    ConfigHandler.check_recovery_conf = lambda self, member: recovery.check_recovery_conf(self, member)
    patroni.postgresql.Postgresql.start = lambda self, *rest, **named: recovery.start(self, *rest, **named)
    return run()


# Not in the process that starts PostgreSQL for Patroni: that imports this file.
if __name__ == "__main__":
    sys.exit(main())
