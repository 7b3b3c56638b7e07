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
The old primary, though, comes back a while after clients were told of another: until
then they find it at its address, and a replica would tell them that it takes no writes.
The charm shows at the pods of whom they were told.

It looks at the lock when that runs out, and not in its next loop. Before it takes the
lock it asks the other members how far they are, and where a pod was just deleted there
is nobody to connect to: Patroni waits two seconds for that, this half a second.

Who did not get the lock reads the cluster anew, which two threads bring, and so does who
asks for it in that moment (GET /cluster). Patroni wakes one of those who wait for each of
the two: one that was woken for the first only, and waits on, was not woken again, and
followed five seconds later.

It tells a server whom to follow that was started while nobody led. Such a server may
lack what makes its data consistent, after a rewind for instance, and lets nobody in:
Patroni takes it for one that begins to follow whomever it followed before.

A Service leads to a new primary when that takes writes. Patroni has it lead there as soon
as the member has the lock, which is some tenths of a second sooner.

A primary that called the others because it did not reach the lock (failsafe mode) is
called back by what it does with the lock later. Patroni takes it for the primary as
long as the lock would have lasted, even when it gave it back for a switchover.

A primary that stopped because it reaches neither the lock nor all others stays stopped
until it sees who leads, and clients were told of another. Patroni starts it to be read
from.

A replica that was away for so long that the primary no longer has the WAL which it
needs is copied anew (rewind.py), as an old primary is that cannot be rewound. Patroni
leaves it to a person.

Pebble, and by it the charm, hears at once when the role of this member changes.
"""

import contextlib
import ctypes
import http.client
import logging
import os
import select
import socket
import sys
import threading
import time

PR_SET_NAME = 15  # prctl(2)
POLL = 0.1  # seconds
OFTEN = 3  # seconds in which it looks that often whether a server has started, or is promoted
ALONE = 5  # seconds that a server may take to start before Patroni looks whom it may need
ASK = 10  # seconds between two looks whether the primary still has the WAL that a server waits for
COPY = 600  # seconds between two attempts to copy a server anew
ANSWER = 3  # seconds for an answer of the primary, or of the Kubernetes API
KEEPALIVE = {"keepalives_idle": 5, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 20000}  # s, ms
CONNECT = 0.5  # seconds for a connection to a member; if a packet is lost the next loop asks again
TOLD = "charmhub.io/told"  # the annotation of the pod with the primary that clients were told of
UNTOLD = 45  # seconds that the old primary waits for that: Juju may need 41 to have another leader who tells them
HEARD = 3  # seconds until Juju has woken all clients
SUCCESSION = 15  # seconds that the old primary waits for another to take the lock, and for its promotion
NEEDED = 2  # the same for the lock where no third member runs: it may be needed for the promotion
ROLE_PORT = 8009  # that Pebble looks at, with its check "role"
LOOK = 0.25  # seconds between two looks at the role
CLOSED = 2  # seconds that the port is closed: some periods of the check

logger = logging.getLogger("patroni")

# The roles of a server that takes writes, and of the leader of a standby cluster.
PROMOTED = ("primary", "master", "standby_leader")  # master: Patroni 3

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


class Condition(threading.Condition):
    """The condition that those wait for who read the cluster: all of them are woken."""

    def notify(self, n=1):
        super().notify(sys.maxsize)


def leader(ha):
    """Returns the name of the other member that has the lock, as Patroni's watch of it
    says; or None."""
    lock = ha.dcs._kinds.get(ha.dcs.leader_path)
    name = (lock.metadata.annotations or {}).get(ha.dcs._LEADER)
    return name if name != ha.dcs._name else None


def is_needed(ha):
    """Whether commits may wait until this member confirms them: no two others run."""
    return sum(m.is_running for m in ha.cluster.members if m.name != ha.state_handler.name) < 2


def is_told(ha):
    """Whether clients were told of the other member that has the lock."""
    pod, name = ha.dcs._pods.get(ha.dcs._name), leader(ha)
    return None not in (pod, name) and (pod.metadata.annotations or {}).get(TOLD) == name


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
    """The old primary waits, before it follows, until clients know the new one, unless
    they wait for it."""
    if is_needed(ha):
        wait(NEEDED, lambda: leader(ha))
    elif wait(SUCCESSION, lambda: leader(ha)) and wait(SUCCESSION, lambda: is_promoted(ha)):
        new = leader(ha)
        wait(UNTOLD, lambda: leader(ha) != new or is_told(ha))
        if leader(ha) == new:  # else it may be needed
            time.sleep(HEARD)


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
    """In place of Kubernetes.watch: waits for a change of the lock, and not beyond its
    end."""
    try:
        left = kubernetes._leader_observed_time + kubernetes.ttl - time.time()
    except Exception:
        left = 0  # it has seen no lock yet, or is another Patroni
    if not 0 < left < timeout:
        return patronis(kubernetes, version, timeout)
    patronis(kubernetes, None, left + POLL / 2)
    return True


def request(requests, *arguments, **options):
    """In place of PatroniRequest.__call__: a question before an election, which is not asked
    again (retries), waits not as long for a connection as for the answer. One of failsafe
    mode does, where all have to answer."""
    import urllib3

    *arguments, patronis = arguments
    if options.get("retries") == 0 and options.get("timeout"):
        options["timeout"] = urllib3.Timeout(connect=CONNECT, read=options["timeout"])
    return patronis(requests, *arguments, **options)


def update_cluster(failsafe, cluster, patronis):
    """In place of Failsafe.update_cluster: puts the primary that called into the cluster,
    if the lock has not changed since."""
    with failsafe._lock:
        if (failsafe._dcs._leader_observed_time or 0) > failsafe._last_update:
            failsafe.set_is_active(0)
    return patronis(failsafe, cluster)


def look_often(timeout, patronis):
    """In place of polling_loop, by which it looks once a second whether a server starts or is
    promoted: mostly that takes tenths of one."""
    yield from patronis(min(timeout, OFTEN), POLL)
    yield from patronis(max(0, timeout - OFTEN))


def touch_member(kubernetes, data, patronis):
    """In place of Kubernetes.touch_member, which labels the pod for the Services: who has the
    lock and is not promoted yet can be read from. It may not have been started yet, as in a
    new pod of the old primary, and is read-only at first."""
    names = vars(kubernetes)
    primary = names.get("_leader_label_value")
    if not primary or data.get("role") in PROMOTED:
        return patronis(kubernetes, data)
    try:
        names["_leader_label_value"] = kubernetes._follower_label_value
        return patronis(kubernetes, data)
    finally:
        names["_leader_label_value"] = primary


class Offline:
    """Whether the server was stopped because the lock is out of reach."""

    def __init__(self):
        self.stopped = self.untold = False
        self.until = 0

    def demote(self, ha, mode, patronis):
        """In place of Ha.demote, whose last question is is_needed."""
        self.stopped = mode == "offline"
        return patronis(ha, mode)

    def is_needed(self, rewind, leader, patronis):
        """In place of Rewind.rewind_or_reinitialize_needed_and_possible: if so, Patroni leaves
        the start to recover."""
        return patronis(rewind, leader) or self.stopped and leader is None

    def recover(self, ha, patronis):
        """In place of Ha.recover, which starts the server."""
        if self.stopped:
            try:
                other = lock_holder(ha.dcs) not in (None, ha.dcs._name)
            except (AttributeError, TypeError):
                other = False  # it is another Patroni
            except Exception as error:
                return f"stopped until it sees who leads: {error}"
            self.stopped = False
            if other and not is_needed(ha):
                self.untold, self.until = True, time.monotonic() + UNTOLD
        if self.untold and is_told(ha):
            self.untold, self.until = False, min(self.until, time.monotonic() + HEARD)
        if time.monotonic() < self.until:
            return "stopped until clients know who leads"
        return patronis(ha)


def lock_holder(dcs):
    """Returns the name of the member that has the lock, as the Kubernetes API says now, or
    None: the watch of it does not notice at once that nothing comes any more."""
    try:
        lock = dcs._api.read_namespaced_kind(dcs.leader_path, dcs._namespace, _request_timeout=ANSWER)
    except Exception as error:
        if getattr(error, "status", None) == 404:  # it was deleted, and nobody has taken it since
            return None
        raise
    return (lock.metadata.annotations or {}).get(dcs._LEADER)


def basebackup(bootstrap, conn_url, env, options, patronis):
    """In place of Bootstrap.basebackup: ends when the primary vanishes in the middle, and
    not after the two hours that the kernel waits."""
    return patronis(bootstrap, conn_url + "".join(f" {k}={v}" for k, v in KEEPALIVE.items()), env, options)


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


# What a server waits for that has replayed all that it has, and gets no more
# (https://www.postgresql.org/docs/17/monitoring-stats.html, wait events).
WAITS_FOR_WAL = """SELECT pg_last_wal_replay_lsn() - '0/0', pg_size_bytes(current_setting('wal_segment_size'))
    FROM pg_stat_activity WHERE backend_type = 'startup' AND wait_event = 'RecoveryRetrieveRetryInterval'"""


class Wal:
    """Whether a server has to be copied anew, because the WAL that it needs is gone."""

    def __init__(self, rewind_status, is_paused):
        self.needed, self.is_paused = rewind_status.NEED, is_paused
        self.next = 0  # when the primary may be asked
        self.gone_from = None  # the name of a primary that does not have it

    def is_needed(self, rewind, leader, patronis):
        """In place of Rewind.rewind_or_reinitialize_needed_and_possible. rewind.py hears of
        it by its environment."""
        if patronis(rewind, leader):
            return True
        if os.environ.pop("WAL_IS_GONE", None) and rewind._state == self.needed:
            rewind.reset_state()  # that primary is gone: the next one may have it
            self.next = 0
        gone_from, self.gone_from = self.gone_from, None
        try:
            if not self.waits(rewind._postgresql, leader):
                return False
            if gone_from == leader.name:
                self.next = time.monotonic() + COPY
                os.environ["WAL_IS_GONE"] = "yes"
                rewind._state = self.needed
                return True
            if time.monotonic() > self.next:
                self.next = time.monotonic() + ASK
                self.ask(rewind._postgresql, leader)
        except Exception as error:
            logger.info("cannot see whether this server waits for WAL: %s", error)
        return False

    def waits(self, server, leader):
        """Whether the server runs and does not follow the leader, as it should."""
        other = leader and leader.conn_url and leader.name not in ("", server.name)
        return other and not self.is_paused() and server.state == "running" and server.replication_state() != "streaming"

    def ask(self, server, leader):
        """Asks for the WAL that the server waits for as the server does. The loop, which may
        have to elect another primary, does not wait for an answer."""
        for position, segment in server.query(WAITS_FOR_WAL, retry=False):
            wanted = {"start_lsn": int(position - position % segment), "timeline": server.get_replica_timeline()}
            address = leader.conn_kwargs(server.config.replication)
            threading.Thread(target=self.look, args=(leader.name, address, wanted), daemon=True).start()

    def look(self, name, address, wanted):
        import psycopg2
        from psycopg2.extras import PhysicalReplicationConnection

        try:
            connection = psycopg2.connect(connection_factory=PhysicalReplicationConnection, connect_timeout=ANSWER, **KEEPALIVE, **address)
            with contextlib.closing(connection), connection.cursor() as cursor:
                cursor.start_replication(**wanted)
                select.select([connection], [], [], ANSWER)
                cursor.read_message()
        except psycopg2.errors.UndefinedFile as error:
            logger.warning("the primary no longer has what this server needs: %s", error)
            self.gone_from = name
        except Exception as error:
            logger.info("cannot ask the primary for what this server needs: %s", error)


def role():
    """Returns what Patroni answers to whether this member has the lock, or None."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        with contextlib.closing(http.client.HTTPConnection("localhost", 8008, timeout=ANSWER)) as patroni:
            patroni.request("GET", "/primary")
            answer = patroni.getresponse()
            answer.read()  # Patroni logs who hangs up before the end
            return answer.status


def announce_role():
    """Closes ROLE_PORT for a while whenever the role has changed. Pebble wakes the charm when
    it finds the port closed, and once more when it finds it open.

    Who asks at an open port is answered by the kernel, however busy the node is. A check
    that runs a command fails when that gets no processor for a second; then the charm was
    woken for nothing, and kept the node busy."""
    known = listener = None
    opens = 0
    while True:
        now = role() or known
        if listener and now != known:
            listener.close()
            listener, opens = None, time.monotonic() + CLOSED
        known = now
        if not listener and known and time.monotonic() >= opens:
            try:
                listener = socket.create_server(("127.0.0.1", ROLE_PORT), backlog=128)
                listener.setblocking(False)
            except OSError as error:
                logger.error("the charm does not hear of changes of the role: %s", error)
                opens = time.monotonic() + ASK
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while listener:
                listener.accept()[0].close()
        time.sleep(LOOK)


def replace(owner, name, ours):
    """Has ours called in place of owner's function of that name, if there is one, which it
    gets as its last argument."""
    patronis = getattr(owner, name, None)
    if patronis:
        setattr(owner, name, lambda *arguments, **named: ours(*arguments, patronis, **named))


def main():
    ctypes.CDLL(None).prctl(PR_SET_NAME, b"patroni")  # the process is known by that
    sys.path.pop(0)  # where this file is, beside the data
    import patroni.postgresql  # before patroni.ha, which it imports
    import patroni.ha
    from patroni.__main__ import main as run
    import patroni.dcs.kubernetes
    from patroni.dcs.kubernetes import Kubernetes
    from patroni.postgresql.bootstrap import Bootstrap
    from patroni.postgresql.config import ConfigHandler
    from patroni.postgresql.rewind import REWIND_STATUS, Rewind
    from patroni.request import PatroniRequest

    patroni.dcs.kubernetes.Condition = Condition
    for field in OF_THE_THREAD:
        setattr(Kubernetes, field, OfTheThread())
    patroni.ha.time = Time()
    patroni.postgresql.STOP_POLLING_INTERVAL = POLL  # how often it looks whether the server has ended
    replace(patroni.postgresql, "polling_loop", look_often)
    replace(Kubernetes, "watch", watch)
    replace(Kubernetes, "touch_member", touch_member)
    replace(patroni.ha.Failsafe, "update_cluster", update_cluster)
    replace(PatroniRequest, "__call__", request)
    replace(Bootstrap, "basebackup", basebackup)
    offline = Offline()
    replace(patroni.ha.Ha, "demote", offline.demote)
    replace(patroni.ha.Ha, "recover", offline.recover)
    replace(Rewind, "rewind_or_reinitialize_needed_and_possible", offline.is_needed)
    with contextlib.suppress(ImportError):  # Patroni 3.3 and later
        from patroni import global_config
        replace(Rewind, "rewind_or_reinitialize_needed_and_possible", Wal(REWIND_STATUS, lambda: global_config.is_paused).is_needed)
    recovery = Recovery(ConfigHandler, patroni.postgresql.Postgresql)
    ConfigHandler.write_recovery_conf = lambda self, parameters: recovery.write_recovery_conf(self, parameters)
    ConfigHandler.check_recovery_conf = lambda self, member: recovery.check_recovery_conf(self, member)
    patroni.postgresql.Postgresql.start = lambda self, *rest, **named: recovery.start(self, *rest, **named)
    threading.Thread(target=announce_role, daemon=True).start()
    return run()


# Not in the process that starts PostgreSQL for Patroni: that imports this file.
if __name__ == "__main__":
    sys.exit(main())
