#!/bin/bash
# Builds the workload image from ../Dockerfile with buildah. Needs root: the
# image has files of uids that an unprivileged user cannot own.
#   image/build.sh                 dist/postgresql-image.tar, an OCI archive of
#                                  localhost/postgresql-k8s:dev; nothing is done
#                                  if it was made from the same files
#   image/build.sh --rootfs DIR    the image's root file system in DIR (owner and mode
#                                  kept), unless it is that already; from the archive
#                                  if there is one, otherwise straight from the build
# Environment: TAG=dev   FORCE=1 builds in any case, for newer packages
#              BASE=...  the base image, if it is on another registry
set -euo pipefail
umask 022 # what is written here ends in the image, or is read by others

suite=trixie
name=localhost/postgresql-k8s:${TAG:-dev}
base=${BASE:-docker.io/library/debian:$suite-slim}

self=$(realpath "$0")
tree=$(dirname "$(dirname "$self")")
archive=$tree/dist/postgresql-image.tar
stamp=$tree/dist/.postgresql-image.stamp
cache=${XDG_CACHE_HOME:-$HOME/.cache}/postgresql-k8s-image
storage=$cache/storage # nothing in it is worth keeping: it dies with each build
log=$cache/build.log

say() { printf 'image: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# quietly COMMAND...: its output goes to the log, whose end is shown if it fails.
quietly() { "$@" >>"$log" 2>&1 || { tail -n 20 "$log" >&2; die "failed: ${*:1:3} ... (all of it: $log)"; }; }

# ensure COMMAND=PACKAGE...: installs what is missing.
ensure() {
  local pair missing=()
  for pair; do command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}"); done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || die "cannot find ${missing[*]}: install them, this is neither Debian nor Ubuntu"
  say "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  quietly dpkg --configure -a # an earlier installation may have been killed
  quietly apt-get update -q
  quietly apt-get install -qy --no-install-recommends -o DPkg::Lock::Timeout=120 "${missing[@]}"
}

# host_sources: "URI SUITE" of Debian as this host fetches it, with the suites renamed.
host_sources() {
  local ID='' VERSION_CODENAME=''
  # shellcheck source=/dev/null
  . /etc/os-release
  [ "$ID" = debian ] && [ -n "$VERSION_CODENAME" ] || return 0
  # shellcheck disable=SC2016 # the fields are for apt-get
  apt-get indextargets --format '$(ORIGIN) $(COMPONENT) $(CODENAME) $(REPO_URI)' 'Created-By: Packages' |
    awk -v old="$VERSION_CODENAME" -v new="$suite" '$1 == "Debian" && $2 == "main" && $4 ~ /^https?:/ &&
      ($3 == old || $3 == old "-updates" || $3 == old "-security") { sub(old, new, $3); print $4, $3 }' | sort -u
}

# make_base ROOT: what the base image has, from Debian's packages. Elsewhere than
# on Debian the mirror is the one that debootstrap itself knows.
make_base() {
  local root=$1 sources mirror include=()
  ensure debootstrap=debootstrap
  [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || ensure debian-archive-keyring=debian-archive-keyring
  sources=$(host_sources)
  mirror=$(awk -v s="$suite" '$2 == s { print $1; exit }' <<<"$sources")
  case $mirror in https:*) include=(--include=ca-certificates) ;; esac
  quietly debootstrap --variant=minbase "${include[@]}" "$suite" "$root" ${mirror:+"$mirror"}
  if [ -n "$mirror" ]; then
    sed 's/^/deb /; s/$/ main/' <<<"$sources" >"$root/etc/apt/sources.list"
  else
    mirror=$(awk '$1 == "deb" { print $2; exit }' "$root/etc/apt/sources.list")
    printf 'deb %s main\n' "$mirror $suite" "$mirror $suite-updates" "$mirror-security $suite-security" \
      >"$root/etc/apt/sources.list"
  fi
  rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/var/log/*.log
  rm -f "$root/etc/resolv.conf" "$root/etc/hostname"
}

# base_image: pulls the base image, or makes it under the same name. What
# debootstrap made is kept for the next time; the Dockerfile upgrades it.
base_image() {
  local kept c root
  say "pulling $base"
  timeout 90 buildah pull --quiet "$base" >>"$log" 2>&1 && return 0
  kept=$cache/debootstrap-$suite-$(uname -m).tar
  if [ ! -s "$kept" ]; then
    say "cannot pull it; making it with debootstrap"
    root=$storage/debootstrap
    make_base "$root"
    tar -C "$root" --numeric-owner --xattrs -cf "$kept.new" .
    mv "$kept.new" "$kept"
    rm -rf "$root"
  else
    say "cannot pull it; using $kept"
  fi
  c=$(buildah from scratch)
  tar -C "$(buildah mount "$c")" --numeric-owner --xattrs --xattrs-include='*' -xf "$kept"
  quietly buildah config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin --cmd bash "$c"
  quietly buildah commit --quiet --rm --disable-compression "$c" "$base"
}

# build [DIR]: the image itself, as archive or into DIR. Runs in namespaces of its
# own (below), so that mounts and processes end with it however it ends.
build() {
  local driver
  mkdir -p "$storage/context" "$storage/tmp" "$(dirname "$archive")"
  export TMPDIR=$storage/tmp
  # A storage of our own: an imitation of the base image must not stay behind in
  # the user's under the name of the real one. vfs copies, but works everywhere.
  export CONTAINERS_STORAGE_CONF=$storage/storage.conf
  for driver in overlay vfs; do
    printf '[storage]\ndriver = "%s"\ngraphroot = "%s"\nrunroot = "%s"\n' \
      "$driver" "$storage/root" "$storage/run" >"$CONTAINERS_STORAGE_CONF"
    buildah info >>"$log" 2>&1 && break
  done
  base_image
  say "building $name (about a minute; log: $log)"
  # chroot isolation needs neither an OCI runtime nor a network of its own.
  quietly buildah bud --isolation chroot --pull-never --squash --layers=false --build-arg "BASE=$base" \
    --tag "$name" --file "$tree/Dockerfile" "$storage/context"
  if [ -n "${1:-}" ]; then copy_files "$1"; else pack; fi
}

# copy_files DIR: what a container of the image would see. Packing and unpacking
# half a gigabyte takes as long as all the rest.
copy_files() {
  local c
  say "copying its files to $1"
  c=$(buildah from --pull-never "$name")
  cp -a --reflink=auto "$(buildah mount "$c")/." "$1"
  quietly buildah umount "$c"
}

pack() {
  local compression=()
  say "packing $archive"
  # zstd: 15 % smaller than gzip, and unpacked several times faster by whoever starts a pod.
  buildah push --help | grep -q -e --compression-format && compression=(--compression-format zstd --compression-level 8)
  quietly buildah push --quiet "${compression[@]}" "$name" "oci-archive:$storage/image.tar:$name"
  mv "$storage/image.tar" "$archive.new" # may cross file systems
  mv "$archive.new" "$archive"
}

wanted() { { echo "$name $base $(uname -m)"; sha256sum <"$tree/Dockerfile"; sha256sum <"$self"; } | sha256sum | cut -d' ' -f1; }
have_rootfs() { [ -d "$1" ] && [ "$(cat "$1.stamp" 2>/dev/null)" = "$(wanted)" ]; }
have() { [ -s "$archive" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$(wanted) $(stat -c %s "$archive")" ]; }

lock() {
  mkdir -p "$cache"
  exec 9>"$cache/lock"
  flock --nonblock 9 || { say "waiting for another build"; flock 9; }
}

# make_image [DIR]: the archive, or the image's files in DIR, from the beginning.
make_image() {
  local child=
  # In a chroot into a plain directory nothing can be mounted that is not seen outside, too.
  awk '$5 == "/" { found = 1 } END { exit !found }' /proc/self/mountinfo ||
    die "this chroot is no mount: outside of it run mount --bind DIR DIR, and chroot again"
  rm -rf "$storage" "$archive.new"
  : >"$log"
  ensure buildah=buildah zstd=zstd
  trap 'rm -rf "$storage"' EXIT
  trap '[ -z "$child" ] || { kill -KILL "$child"; wait "$child"; } 2>/dev/null; exit 143' INT TERM HUP
  # If this shell is killed, so is unshare; with unshare dies its process namespace.
  setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child --mount-proc "$self" --inner "$@" </dev/null &
  child=$!
  wait "$child" || die "no image"
}

ensure_image() {
  [ -z "${FORCE:-}" ] && have && { say "$archive is up to date"; return 0; }
  lock
  [ -z "${FORCE:-}" ] && have && { say "$archive is up to date"; return 0; }
  make_image
  echo "$(wanted) $(stat -c %s "$archive")" >"$stamp.new"
  mv "$stamp.new" "$stamp"
  [ -z "${SUDO_UID:-}" ] || chown "$SUDO_UID:$SUDO_GID" "$tree/dist" "$archive" "$stamp"
  say "$name: $(du -m "$archive" | cut -f1) MB in $SECONDS s"
}

ensure_rootfs() {
  local dir=$1
  [ -z "${FORCE:-}" ] && have_rootfs "$dir" && { say "$dir is up to date"; return 0; }
  lock
  [ -z "${FORCE:-}" ] && have_rootfs "$dir" && { say "$dir is up to date"; return 0; }
  if [ -n "$(ls -A "$dir" 2>/dev/null)" ] && [ ! -e "$dir.stamp" ]; then
    die "$dir is not empty, and not from here: remove it first"
  fi
  # rm would follow a mount into what is mounted.
  awk -v d="$dir/" 'index($2, d) == 1 { exit 1 }' /proc/self/mounts || die "something is mounted in $dir: unmount it first"
  mkdir -p "$(dirname "$dir")"
  echo unfinished >"$dir.stamp"
  rm -rf "$dir.new" "$dir.old"
  mkdir "$dir.new"
  if [ -z "${FORCE:-}" ] && have; then unpack "$dir.new"; else make_image "$dir.new"; fi
  [ ! -e "$dir" ] || mv "$dir" "$dir.old"
  mv "$dir.new" "$dir"
  wanted >"$dir.stamp"
  rm -rf "$dir.old"
  say "$name is in $dir after $SECONDS s"
}

# unpack DIR: the one layer of the archive.
unpack() {
  local manifest layer digest program
  ensure zstd=zstd
  manifest=$(tar -xOf "$archive" index.json | grep -o 'sha256:[0-9a-f]*' | head -n 1)
  layer=$(tar -xOf "$archive" "blobs/sha256/${manifest#sha256:}" | tr -d '\n' | sed 's/.*"layers": *\[\([^]]*\)\].*/\1/')
  digest=$(grep -o 'sha256:[0-9a-f]*' <<<"$layer")
  [ "$(wc -l <<<"$digest")" = 1 ] || die "$archive has more than one layer"
  case $layer in *+zstd*) program=zstd ;; *) program=gzip ;; esac
  tar -xOf "$archive" "blobs/${digest/://}" | "$program" -dc |
    tar -C "$1" --numeric-owner --xattrs --xattrs-include='*' -xpf -
}

main() {
  local dir
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || die "needs root"
    exec sudo --preserve-env=TAG,BASE,FORCE,http_proxy,https_proxy "$self" "$@"
  fi
  case ${1:-} in
    --inner) build "${2:-}" ;;
    --rootfs)
      [ -n "${2:-}" ] || die "which directory?"
      dir=$(realpath -m "$2")
      [ "$dir" != / ] || die "not into /"
      ensure_rootfs "$dir"
      ;;
    '') ensure_image ;;
    *) sed -n '2,/^set /{/^set /d; s/^# \{0,1\}//; p}' "$self"; exit 2 ;;
  esac
}
main "$@"
