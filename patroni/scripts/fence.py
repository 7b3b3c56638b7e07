"""Makes sure that an old primary can confirm no commit any more.

Patroni runs this on a replica that holds the leader's lock, before it promotes it
(pre_promote, https://patroni.readthedocs.io/en/latest/yaml_configuration.html).
A quorum commit needs any K of the N other members. An old primary that is frozen
or cut off, but still reached by some of them, could go on confirming commits that
this member will never see. So this member is promoted only when

* no other member can be a primary: its Patroni says so, or it does not run; or
* so many of the others follow this member, and have nothing that it lacks, that
  the old primary cannot find K any more: N - K of them. They follow whoever holds
  the lock, within tenths of a second.

Without a quorum there is nothing to wait for: then the old primary needs this very
member. Exits 1 after a while: Patroni gives the lock back, and another member may
try, the one that is ahead, for instance. The argument is where psql is.
"""

import json
import socket
import subprocess
import sys
import threading
import time

PATIENCE = 15  # seconds
TIMEOUT = 1  # second, for each question to a member
PAUSE = 0.1  # seconds
FOLLOW = 0.3  # seconds in which the others mostly follow; until then nobody is asked

# How many of the others must follow, and how many do; no row without a quorum.
FOLLOWERS = r"""
WITH wanted AS (
  SELECT regexp_match(current_setting('synchronous_standby_names'), '^ANY (\d+) \((.*)\)$') AS m
), others AS (
  SELECT m[1]::int AS k, btrim(name, ' "') AS name FROM wanted, string_to_table(m[2], ',') AS name
)
SELECT count(*) - min(k), count(r.application_name)
FROM others LEFT JOIN (
  SELECT DISTINCT application_name FROM pg_stat_replication
  WHERE state = 'streaming'
    AND greatest(flush_lsn, replay_lsn) <= greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
) r ON lower(r.application_name) = lower(others.name)
HAVING count(*) > 0
"""


def get(url):
    """Returns the JSON that Patroni answers, whatever the status."""
    # Mostly nobody is asked, and to import this takes as long as all the rest, while
    # clients wait.
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as answer:
        return json.load(answer)


def harmless(member):
    """Tells whether a member certainly is no primary."""
    if not member.get("host"):
        return True  # it is a pod in which Patroni has never run
    try:
        return get(member["api_url"]).get("role") not in ("primary", "master", "promoted")
    except Exception:
        pass  # Patroni is gone or frozen, or cannot be reached; what of the server?
    try:
        socket.create_connection((member["host"], member["port"]), TIMEOUT).close()
    except ConnectionRefusedError:
        return True  # nobody listens
    except socket.gaierror as error:
        # There is no such pod; that no name server answers says nothing of it.
        return error.errno in (socket.EAI_NONAME, socket.EAI_NODATA)
    except OSError:
        pass  # it may be alive on the other side of a cut
    return False


def quorum_is_ours(bin_dir):
    """Tells whether enough of the others follow, or need not."""
    answer = subprocess.run(
        [bin_dir + "/psql", "-XAtq", "-h", "/var/run/postgresql", "-U", "backup", "-d", "postgres", "-c", FOLLOWERS],
        capture_output=True, text=True, timeout=TIMEOUT * 5,
    )
    if answer.returncode != 0:
        # The charm makes this role before it lets any client in.
        return 'role "backup" does not exist' in answer.stderr
    if not answer.stdout.strip():
        return True
    wanted, following = map(int, answer.stdout.split("|"))
    return following >= wanted


def others():
    me = get("http://localhost:8008/patroni")["patroni"]["name"]
    return [m for m in get("http://localhost:8008/cluster")["members"] if m["name"] != me]


class Look:
    """Asks whether all of the members are harmless, each in a thread of its own: one that
    is cut off keeps nobody waiting who has found a quorum meanwhile."""

    def __init__(self, members):
        self.waiting, self.harmless, self.over = len(members), True, threading.Event()
        self.lock = threading.Lock()
        if not members:
            self.over.set()
        for member in members:
            threading.Thread(target=self.ask, args=(member,), daemon=True).start()

    def ask(self, member):
        answer = False
        try:
            answer = harmless(member)
        finally:
            with self.lock:
                self.waiting -= 1
                self.harmless = self.harmless and answer
                if self.waiting == 0:
                    self.over.set()


def main():
    begin = time.monotonic()
    end = begin + PATIENCE
    look = None
    while time.monotonic() < end:
        try:
            if quorum_is_ours(sys.argv[1]):
                return 0
            if time.monotonic() > begin + FOLLOW:
                look = look or Look(others())
                if not look.over.wait(PAUSE):
                    continue
                if look.harmless:
                    return 0
                look = None
        except Exception as error:
            print("cannot look at the other members:", error, file=sys.stderr)
        time.sleep(PAUSE)
    print("another member may still be a primary that finds its quorum: not promoted", file=sys.stderr)
    return 1


sys.exit(main())
