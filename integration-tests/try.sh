#!/usr/bin/env bash
# A first session with Kiln: try.sh FOLDER-OF-THE-PROGRAMS
#
# Everything happens in a temporary folder with a daemon of its own, and is gone afterwards.
set -euo pipefail

programs=${1:?the folder of kiln and kilnd}
work=$(mktemp --directory --tmpdir kiln-try.XXXXXX)
daemon=

finish() {
    local status=$?
    if [ -n "$daemon" ]; then
        kill "$daemon" 2>/dev/null || true
        wait "$daemon" || true
    fi
    [ $status -eq 0 ] || { echo "---- the daemon's log:"; cat "$work/kilnd.log"; } >&2
    rm -rf "$work"
    exit $status
}
trap finish EXIT

if [ -t 1 ]; then bold=$'\e[1m' plain=$'\e[0m'; else bold='' plain=''; fi
tell() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
run() {
    printf '%s$ %s%s\n' "$bold" "$*" "$plain"
    "$@"
}

# What an ordinary user needs a namespace for.
in_root() {
    if [ "$(id -u)" = 0 ]; then chroot "$@"; else unshare --map-root-user --root="$1" "${@:2}"; fi
}

PATH=$programs:$PATH
export KILN_HOST=unix://$work/kilnd.sock
cd "$work"

tell "A daemon of its own, in $work"
kilnd --root "$work/root" --addr "$KILN_HOST" >"$work/kilnd.log" 2>&1 &
daemon=$!
until kiln info >/dev/null 2>&1; do
    kill -0 "$daemon" 2>/dev/null || { echo "kilnd did not start" >&2; exit 1; }
    sleep 0.1
done
kiln info

tell "A base image out of nothing but a static busybox: no registry is needed."
mkdir base app
cp "$(command -v busybox)" base/busybox
cat >base/Dockerfile <<'END'
FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
ENV PATH=/bin
CMD ["/bin/sh"]
END
run kiln build --progress=plain -t try.kiln/base base

tell "An application on top of it, its steps in the order that makes the cache useful."
cat >app/Dockerfile <<'END'
FROM try.kiln/base
WORKDIR /app
COPY packages .
RUN echo installing $(cat packages) && sleep 1 && cp packages installed
COPY . .
RUN cat greeting installed > message
CMD ["cat", "/app/message"]
END
echo "a b c" >app/packages
echo "Hello from an image that Kiln built." >app/greeting
run cat app/Dockerfile
run kiln build --progress=plain -t try.kiln/app app

tell "What is in the image:"
run kiln build --progress=quiet --output "type=oci,dest=$work/app.tar" app >/dev/null
tar --list --verbose --file app.tar
run kiln build --progress=quiet --output "$work/rootfs" app >/dev/null
run in_root rootfs /bin/cat /app/message

tell "The same build again: every step is CACHED."
run kiln build --progress=plain -t try.kiln/app app

tell "A source file changes: the install step above it stays CACHED."
echo "Hello again, after a change." >app/greeting
run kiln build --progress=plain -t try.kiln/app app
kiln build --progress=quiet --output "$work/rootfs2" app >/dev/null
run in_root rootfs2 /bin/cat /app/message

tell "What the daemon keeps:"
run kiln du

tell "That was Kiln. The programs are in $programs; README.md says where to go from here."
