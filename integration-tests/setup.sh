#!/usr/bin/env bash
# Makes sure that the machine has what a make target needs: setup.sh build|try|test
#
# On Debian, as root, what is missing is installed. Anybody else is told what to do.
set -euo pipefail

# Debian's package, and a program or file by which its presence is known.
build_needs=(
    "build-essential:c++"        # rocksdb, zstd and lzma are C and C++
    "libclang-dev:libclang"      # reads rocksdb's header for its bindings
)
try_needs=(
    "busybox-static:busybox"     # what the first base image is made of
    "uidmap:newuidmap"           # what an ordinary user's daemon needs
    "passt:pasta"
)
test_needs=(
    "${try_needs[@]}"
    "git:git"                          # the daemon gets repositories with it
    "docker-registry:docker-registry"  # images are pushed to it and pulled from it
    "skopeo:skopeo"                    # these three judge the images
    "umoci:umoci"
    "runc:runc"
    "iproute2:ip"                      # and these make networks for steps to be in
    "iptables:iptables"
    "e2fsprogs:mkfs.ext4"              # disks that fail are made with them
    "xfsprogs:mkfs.xfs"
    "slirp4netns:slirp4netns"
)

# The account by which tests run daemons without root.
test_user=kiln-test

say() { printf '%s\n' "$*" >&2; }

has() {
    case $1 in
    # Not libclang-cpp, which other packages bring.
    libclang) compgen -G '/usr/lib/llvm-*/lib/libclang[.-][s0-9]*' >/dev/null ||
        compgen -G '/usr/lib/*/libclang[.-][s0-9]*' >/dev/null ;;
    # The static one: a program that names a loader at its head cannot be alone in an image.
    busybox) command -v busybox >/dev/null && ! head -c 4096 "$(command -v busybox)" | grep -aq ld-linux ;;
    *) command -v "$1" >/dev/null ;;
    esac
}

root_only() {
    [ "$(id -u)" = 0 ] && return
    say "The tests run daemons as root and as an ordinary user, which takes root. \"make build\","
    say "\"make try\" and \"make lint\" work for everybody; for \"make $1\" be root and keep your"
    say "toolchain:"
    say "  sudo env PATH=\"\$PATH\" HOME=\"\$HOME\" make $1"
    exit 1
}

install_missing() {
    local missing=() need
    for need in "$@"; do
        has "${need#*:}" || missing+=("${need%%:*}")
    done
    [ ${#missing[@]} -eq 0 ] && return
    local command="apt-get install --yes --no-install-recommends ${missing[*]}"
    if ! command -v apt-get >/dev/null; then
        say "Missing: ${missing[*]} (Debian's names). Install them and try again."
        exit 1
    fi
    if [ "$(id -u)" != 0 ]; then
        say "Missing: ${missing[*]}. Run: sudo $command"
        exit 1
    fi
    say "Installing: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    # Services of the packages (docker-registry has one) stay off: tests start their own.
    local policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod +x $policy
        # Expanded now: a local variable is gone when the trap runs.
        # shellcheck disable=SC2064
        trap "rm -f $policy" EXIT
    fi
    # shellcheck disable=SC2086
    $command </dev/null >&2 || { apt-get update </dev/null >&2 && $command </dev/null >&2; }
}

# Makes the ordinary user of the tests, with ids of its own, and lets users make networks as systemd
# does.
ordinary_user() {
    touch /etc/subuid /etc/subgid
    id $test_user >/dev/null 2>&1 || useradd --create-home --shell /usr/sbin/nologin $test_user
    grep -q "^$test_user:" /etc/subuid || usermod --add-subuids 200000-265535 $test_user
    grep -q "^$test_user:" /etc/subgid || usermod --add-subgids 200000-265535 $test_user
    [ ! -e /dev/net/tun ] || chmod 666 /dev/net/tun
    # Ubuntu has AppArmor take all rights from user namespaces of programs that have no profile.
    local restricted=/proc/sys/kernel/apparmor_restrict_unprivileged_userns
    [ ! -e $restricted ] || echo 0 >$restricted
}

rust() {
    command -v cargo >/dev/null && return
    say "There is no cargo. Install Rust with rustup (https://rustup.rs); the toolchain that"
    say "rust-toolchain.toml names is then fetched by itself."
    exit 1
}

case ${1:-} in
build)
    rust
    install_missing "${build_needs[@]}"
    ;;
try)
    install_missing "${try_needs[@]}"
    ;;
test)
    root_only test
    install_missing "${test_needs[@]}"
    ordinary_user
    ;;
*)
    say "usage: setup.sh build|try|test"
    exit 2
    ;;
esac
