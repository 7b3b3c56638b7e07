# The workload image: one Debian root file system with everything that runs
# beside PostgreSQL in a pod. Juju starts Pebble in it and ignores entry point
# and user, so neither is set. `make image` builds it (image/build.sh); so does
# any other builder of Dockerfiles, as nothing is copied from the tree.

# Another registry may be named here; another release of Debian may not, as it
# carries another major version of PostgreSQL.
ARG BASE=docker.io/library/debian:trixie-slim
FROM ${BASE}
ARG PG_MAJOR=17

# One layer: what is deleted at its end never ships.
RUN set -eu; \
    export DEBIAN_FRONTEND=noninteractive; \
    # The ids of upstream's image, so that a volume changes hands without a chown;
    # 1000-9999 are not for us: Juju refuses them. --system asks for no subordinate
    # ids, --no-log-init for no lastlog that is sparse up to this uid.
    groupadd --system --gid 584788 postgres; \
    useradd --system --no-log-init --uid 584788 --gid postgres \
        --home-dir /var/lib/postgresql --shell /bin/bash postgres; \
    # Nobody reads manuals or translated messages in a pod. Licences stay: they
    # must travel with the programs.
    printf '%s\n' 'path-exclude=/usr/share/doc/*' 'path-include=/usr/share/doc/*/copyright' \
        'path-exclude=/usr/share/info/*' 'path-exclude=/usr/share/lintian/*' \
        'path-exclude=/usr/share/locale/*' 'path-include=/usr/share/locale/locale.alias' \
        'path-exclude=/usr/share/man/*' >/etc/dpkg/dpkg.cfg.d/no-manuals; \
    # An interrupted build is thrown away, so no file needs to reach the disk at once.
    echo force-unsafe-io >/etc/dpkg/dpkg.cfg.d/unsafe-io; \
    # Pebble starts services; a package that is being installed must not.
    printf '%s\n' '#!/bin/sh' 'exit 101' >/usr/sbin/policy-rc.d; \
    chmod 755 /usr/sbin/policy-rc.d; \
    # The charm makes the cluster, on its volume; the package must not.
    mkdir -p /etc/postgresql-common; \
    echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf; \
    apt-get update -q; \
    # The base is as old as its last point release; security fixes are younger.
    apt-get upgrade -qy --no-install-recommends; \
    apt-get install -qy --no-install-recommends \
        # For the object stores that pgBackRest talks to.
        ca-certificates \
        locales \
        # Clients still say "US/Eastern"; trixie keeps such names apart.
        tzdata tzdata-legacy \
        # Brings its own Kubernetes client; python3-kubernetes would add 14 MB for nothing.
        patroni \
        pgbackrest \
        # With all of contrib: bloom, citext, hstore, pg_stat_statements, ...
        postgresql-${PG_MAJOR} \
        prometheus-pgbackrest-exporter \
        prometheus-postgres-exporter \
        # The plugin_* options beyond contrib. postgis is a third of the image
        # (235 MB unpacked, 57 MB to download): the price of offering every option.
        postgresql-plperl-${PG_MAJOR} \
        postgresql-plpython3-${PG_MAJOR} \
        postgresql-pltcl-${PG_MAJOR} \
        postgresql-${PG_MAJOR}-debversion \
        postgresql-${PG_MAJOR}-hll \
        postgresql-${PG_MAJOR}-hypopg \
        postgresql-${PG_MAJOR}-icu-ext \
        postgresql-${PG_MAJOR}-ip4r \
        postgresql-${PG_MAJOR}-orafce \
        postgresql-${PG_MAJOR}-pgaudit \
        postgresql-${PG_MAJOR}-pgvector \
        postgresql-${PG_MAJOR}-postgis-3 \
        postgresql-${PG_MAJOR}-postgis-3-scripts \
        postgresql-${PG_MAJOR}-prefix \
        postgresql-${PG_MAJOR}-rdkit \
        postgresql-${PG_MAJOR}-similarity \
        postgresql-${PG_MAJOR}-tds-fdw \
        # Debian builds it without the parts under the Timescale licence.
        postgresql-${PG_MAJOR}-timescaledb \
        # No option; upstream's later track escalates privileges through it.
        postgresql-${PG_MAJOR}-set-user \
    ; \
    # Clusters made by upstream's charm have lc_messages en_US.UTF8; C.UTF-8 is built in.
    localedef -i en_US -f UTF-8 en_US.UTF-8; \
    # Where processes of postgres write outside of any volume; the mount point too.
    install -d -o postgres -g postgres -m 0755 /var/lib/postgresql; \
    install -d -o postgres -g postgres -m 0700 /var/lib/postgresql/data; \
    install -d -o postgres -g postgres -m 2775 /run/postgresql; \
    install -d -o postgres -g postgres -m 0750 \
        /var/log/postgresql /var/log/pgbackrest /var/lib/pgbackrest /var/spool/pgbackrest; \
    # A private key made here would be known to whoever has the image.
    rm -f /etc/ssl/private/ssl-cert-snakeoil.key /etc/ssl/certs/ssl-cert-snakeoil.pem; \
    # Nothing in a pod has to become root by executing a file.
    find / -xdev -type f -perm /6000 -exec chmod a-s {} +; \
    # What the base brought of the excluded paths, and what apt and dpkg leave.
    cd /usr/share; \
    mkdir -p doc info lintian locale man; \
    find doc info lintian locale man -type f ! -name copyright ! -name locale.alias -delete; \
    find doc info lintian locale man -mindepth 1 -type d -empty -delete; \
    apt-get clean; \
    rm -rf /etc/dpkg/dpkg.cfg.d/unsafe-io /tmp/* /var/tmp/* /var/cache/apt/*.bin /var/cache/debconf/*-old \
        /var/lib/apt/lists/* /var/lib/dpkg/*-old /var/log/apt /var/log/*.log

# psql and its kin in /usr/bin are Debian's wrappers, which look for a cluster
# that is registered under /etc/postgresql; there is none. The programs come first.
ENV PATH=/usr/lib/postgresql/${PG_MAJOR}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    LANG=C.UTF-8

LABEL org.opencontainers.image.title="postgresql-k8s workload" \
      org.opencontainers.image.description="PostgreSQL ${PG_MAJOR} with Patroni, pgBackRest and Prometheus exporters on Debian trixie" \
      # Those of the main programs; each package's own is in /usr/share/doc/*/copyright.
      org.opencontainers.image.licenses="PostgreSQL AND MIT AND Apache-2.0 AND GPL-2.0-or-later"
