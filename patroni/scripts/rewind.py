#!/usr/bin/python3
"""pg_rewind, and what to do when it fails.

Patroni runs this in the place of pg_rewind (bin_name,
https://patroni.readthedocs.io/en/latest/yaml_configuration.html) when an old
primary has what the new one lacks. Where pg_rewind fails, Patroni would wait for a
person, or delete the data and clone anew. This clones beside what is there, checks
that the copy stands, and only then takes the old data away. It does that at once when
WAL_IS_GONE is in its environment (patroni.py). Arguments and exit status are
pg_rewind's (https://www.postgresql.org/docs/17/app-pgrewind.html).
"""

import ctypes
import fcntl
import os
import shutil
import subprocess
import sys
import time

import yaml

ATTEMPTS = 2  # the source may just have been busy
PAUSE = 2  # seconds
KEEPALIVE = " keepalives_idle=5 keepalives_interval=5 keepalives_count=3 tcp_user_timeout=20000"  # a primary may vanish
STANDS = 3600  # seconds for a copy to replay what was written during it

# A standby must have as much of these as the primary had; pg_controldata's names.
LIMITS = {
    "max_connections": "max_connections",
    "max_worker_processes": "max_worker_processes",
    "max_wal_senders": "max_wal_senders",
    "max_prepared_xacts": "max_prepared_transactions",
    "max_locks_per_xact": "max_locks_per_transaction",
}


def say(text):
    print("rewind:", text, file=sys.stderr, flush=True)


def option(name):
    """Returns the value that follows an option, or None."""
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else None


def size(directory):
    """Returns how many bytes the files in a directory take."""
    total = 0
    for path, _, files in os.walk(directory):
        for name in files:
            try:
                total += os.lstat(os.path.join(path, name)).st_blocks * 512
            except FileNotFoundError:
                pass
    return total


def stand(programs, data):
    """Starts a copy as a standby and stops it; raises if it does not become consistent.

    A copy's pg_control is that of a running primary. Patroni would recover it as one
    that has crashed, and so have it write what no other member has.
    """
    control = subprocess.run([os.path.join(programs, "pg_controldata"), data], check=True, capture_output=True, text=True)
    options = {"listen_addresses": "", "unix_socket_directories": data, "logging_collector": "off", "primary_conninfo": ""}
    for line in control.stdout.splitlines():
        name, _, value = line.partition(" setting:")
        if name in LIMITS:
            options[LIMITS[name]] = value.strip()
    run = [os.path.join(programs, "pg_ctl"), "-D", data, "-s", "-w", "-t", str(STANDS)]
    signal = os.path.join(data, "standby.signal")
    open(signal, "w").close()
    subprocess.run(run + ["start", "-o", " ".join(f"-c {k}='{v}'" for k, v in options.items())], check=True)
    subprocess.run(run + ["stop", "-m", "fast"], check=True)
    os.remove(signal)


def exchange(a, b):
    """Exchanges two directories at once (renameat2(2)); raises if it cannot."""
    here, both = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if ctypes.CDLL(None, use_errno=True).renameat2(here, os.fsencode(a), here, os.fsencode(b), both) != 0:
        raise OSError(ctypes.get_errno(), f"cannot exchange {a} and {b}")


def clone(programs, data, source):
    """Puts a copy of the source into the place of the data; raises if it cannot."""
    new = data + ".clone"
    shutil.rmtree(new, ignore_errors=True)  # of an attempt that was killed
    needed, free = size(data), shutil.disk_usage(os.path.dirname(data)).free
    if free < needed:
        raise OSError(f"a copy needs about {needed >> 20} MB, and {free >> 20} MB are free")
    with open(os.path.join(os.path.dirname(data), "patroni.yml")) as file:
        replication = yaml.safe_load(file)["postgresql"]["authentication"]["replication"]
    env = {k: v for k, v in os.environ.items() if k != "PGPASSFILE"}
    env["PGPASSWORD"] = replication["password"]
    say("copying the primary beside the data")
    source += " user=" + replication["username"] + KEEPALIVE  # the last one counts
    # A slot of its own would have it confirm commits (patroni/config.go).
    run = [os.path.join(programs, "pg_basebackup"), "-D", new, "-d", source, "-X", "stream", "-c", "fast", "-w", "--no-slot"]
    subprocess.run(run, env=env, check=True)
    subprocess.run([os.path.join(programs, "pg_verifybackup"), "-q", new], check=True)
    stand(programs, new)
    exchange(new, data)
    say("the copy stands; removing the old data")
    shutil.rmtree(new, ignore_errors=True)


def rewind(programs, source=None):
    """Runs pg_rewind as it was asked to; returns its exit status."""
    arguments = [a + KEEPALIVE if a == source else a for a in sys.argv[1:]]
    return subprocess.call([os.path.join(programs, "pg_rewind"), *arguments])


def main():
    data, source = option("-D"), option("--source-server")
    if not data or not source:  # pg_rewind --help, by which Patroni looks whether there is one
        programs = max((p.path for p in os.scandir("/usr/lib/postgresql")), key=lambda p: int(os.path.basename(p))) + "/bin"
        return rewind(programs)
    with open(os.path.join(data, "PG_VERSION")) as file:
        programs = os.path.join("/usr/lib/postgresql", file.read().strip(), "bin")
    # One at a time: a Patroni that was killed may have left one running.
    fcntl.flock(os.open(os.path.dirname(data), os.O_RDONLY), fcntl.LOCK_EX)
    for attempt in range(0 if "WAL_IS_GONE" in os.environ else ATTEMPTS):
        if attempt:
            time.sleep(PAUSE)
        if rewind(programs, source) == 0:
            return 0
    try:
        clone(programs, data, source)
    except Exception as error:
        say(f"cannot copy the primary, and nothing was deleted: {error}")
        shutil.rmtree(data + ".clone", ignore_errors=True)  # it takes room
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
