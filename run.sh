#!/usr/bin/env bash
# The door to gptoss: builds what is asked for, then hands over to it.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# The toolchain is named in rust-toolchain.toml; a missing part is a message, not a download.
export RUSTUP_AUTO_INSTALL=0

usage() {
    cat <<'TEXT'
./run.sh COMMAND [ARGUMENTS]      (./run.sh COMMAND -h says more)

  run       generate, chat, or run a file of prompts; with no checkpoint, the built-in model
  test      formatting, clippy, tests, documentation, and the commands of the README
  build     the GPU kernels (--arch LIST) and the program
  export    a model to the reference .bin
  decode    output files back to text
  synth     a model with random weights, at any published size
  golden    compare a model's logits with recorded ones
  bench     speed of the CPU engine, the kernels, the emulator
  codegen   registers, memory and instructions of every kernel, chips side by side
  doctor    what this machine has, and what is missing
TEXT
}

die() {
    echo "run.sh: $*" >&2
    exit 2
}

# GPTOSS_PROFILE=dev takes the build that the tests have made.
profile=${GPTOSS_PROFILE:-release}
[ "$profile" = dev ] && folder=debug || folder=$profile
programs=${CARGO_TARGET_DIR:-$root/target}/$folder

# Chips that the emulator has: kernels of another would be built for nothing.
emulated='gfx1100|gfx1151'

duration() {
    if [ "$1" -lt 60 ]; then echo "$1 s"; else echo "$(($1 / 60)) min $(($1 % 60)) s"; fi
}

# WHAT FAR COMMAND...: runs COMMAND, and tells how long it has been at WHAT and what FAR prints: in
# place on a terminal, elsewhere in a line every few seconds.
watched() {
    local what=$1 far=$2 start=$SECONDS status=0
    shift 2
    tick "$what" "$far" "$start" &
    ticker=$!
    trap 'kill "$ticker" 2>/dev/null' EXIT
    "$@" || status=$?
    trap - EXIT
    kill "$ticker" 2>/dev/null || true
    wait "$ticker" 2>/dev/null || true
    [ ! -t 2 ] || printf '\r\033[K' >&2
    if [ $((SECONDS - start)) -ge 2 ] && [ "$status" = 0 ]; then
        echo "$what: done in $(duration $((SECONDS - start)))" >&2
    fi
    return "$status"
}

tick() {
    local what=$1 far=$2 start=$3 next=2 pause elapsed text
    # A pipe that nobody writes to: waiting on it needs no process that would outlive this one.
    exec {pause}<> <(:)
    while sleeping "$pause" && kill -0 $$ 2>/dev/null; do
        elapsed=$((SECONDS - start))
        text="$what: $("$far")$(duration "$elapsed")"
        if [ -t 2 ]; then
            printf '\r\033[K%s' "$text" >&2
        elif [ "$elapsed" -ge "$next" ]; then
            echo "$text" >&2
            next=$((elapsed + 4))
        fi
    done
}

sleeping() {
    read -rt 1 -u "$1" || [ $? -gt 128 ]
}

nothing() { :; }

# Builds the program BIN of PACKAGE.
cargo_build() {
    local what=(--profile "$profile" --package "$1" --bin "$2") status=0
    messages=$(mktemp)
    crates_of=("${what[@]}")
    watched "building $2" crates cargo_quiet "${what[@]}" || status=$?
    rm -f "$messages" "$messages.total"
    return "$status"
}

cargo_quiet() {
    (cd "$root" && cargo build --quiet --message-format=json-render-diagnostics "$@" >"$messages")
}

# How many crates are done, of as many as cargo plans.
crates() {
    local finished
    finished=$(grep -c '"reason":"compiler-artifact"' "$messages") || true
    if [ ! -e "$messages.total" ]; then
        : >"$messages.total"
        (cd "$root" && cargo build -Z unstable-options --unit-graph "${crates_of[@]}" 2>/dev/null |
            grep -o '"mode":"build"' | wc -l >"$messages.total") &
    fi
    local total
    total=$(cat "$messages.total")
    [ "${total:-0}" -gt 0 ] && echo "$finished of $total crates, " || echo "$finished crates, "
}

# Brings kernels up to date; device-build says what it compiles.
kernels() {
    cargo_build gptoss-device-build device-build || return
    (cd "$root" && watched "building kernels" nothing "$programs/device-build" "$@")
}

# Whether nothing that the arguments ask for runs kernels of this checkout.
needs_no_kernels() {
    local previous= argument
    for argument in "$@"; do
        case $previous/$argument in
            */-h | */--help | */--kernels | */--kernels=* | bench/cpu | bench/emu) return 0 ;;
            --device/cpu | */--device=cpu) return 0 ;;
            -m/getp_cpu | --mode/getp_cpu | */-mgetp_cpu | */--mode=getp_cpu) return 0 ;;
        esac
        previous=$argument
    done
    return 1
}

# The kernels of what the arguments name, so that old ones never meet a new program. Where they
# cannot be built, the CPU engine still runs, and a GPU is refused with what is missing.
kernels_for() {
    local argument chip chips=()
    ! needs_no_kernels "$@" || return 0
    for argument in "$@"; do
        [[ $argument =~ ^(--device=)?emu:(gfx[0-9a-f]+) ]] || continue
        chip=${BASH_REMATCH[2]}
        # The program refuses another at once.
        [[ $chip =~ ^($emulated)$ ]] || return 0
        chips=(--arch "$chip")
    done
    kernels --quiet "${chips[@]}" ||
        echo "run.sh: going on without up-to-date GPU kernels; --device cpu needs none" >&2
}

gptoss() {
    cargo_build gptoss gptoss
    # Paths among the arguments are the caller's.
    exec "$programs/gptoss" "$@"
}

main() {
    [ $# -gt 0 ] || { usage >&2; exit 2; }
    local command=$1
    shift
    case $command in
        -h | --help | help) usage ;;
        build) build "$@" ;;
        test) run_tests "$@" ;;
        run | golden | bench)
            kernels_for "$command" "$@"
            gptoss "$command" "$@" ;;
        export | decode | synth | codegen | doctor) gptoss "$command" "$@" ;;
        *) die "unknown command '$command', expected one of: run test build export decode synth golden bench codegen doctor" ;;
    esac
}

build() {
    cd "$root"
    local arch=
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help)
                cat <<'TEXT'
./run.sh build [--arch LIST]

Builds the GPU kernels, and gptoss with them embedded.
  --arch LIST   chips separated by commas, or all; without it, GPU_ARCH, else the GPUs found here
                and gfx1151
TEXT
                return ;;
            --arch)
                [ $# -ge 2 ] || die "--arch needs a list of chips, as gfx1151,gfx942"
                arch=$2
                shift 2 ;;
            *) die "build: unknown argument '$1', expected --arch LIST" ;;
        esac
    done
    # The reference systems name their chip in the environment.
    if [ -z "$arch" ] && [ "${GPU_ARCH:-auto}" != auto ]; then
        arch=$GPU_ARCH
        echo "run.sh: GPU_ARCH is set: kernels for $arch (--arch overrides it)" >&2
    fi
    kernels ${arch:+--arch "$arch"}
    cargo_build gptoss gptoss
}

step() {
    echo "== $*"
    "$@"
}

# A step that prints nothing by itself.
quiet_step() {
    echo "== $*"
    watched "$1 $2" nothing "$@"
}

run_tests() {
    cd "$root"
    local kernels=0 device=emu:gfx1151
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help)
                cat <<'TEXT'
./run.sh test [--full] [--kernels [--device D]]

Formatting, clippy with warnings denied, all tests, documentation, the README's commands.
  --full        the long sweeps too, and the engine on the second emulated chip
  --kernels     only the kernel tests, on one device
  --device D    emu:gfx1151 (default), emu:gfx1100, hip, cuda
TEXT
                return ;;
            --full) export GPTOSS_TEST_FULL=1; shift ;;
            --kernels) kernels=1; shift ;;
            --device)
                [ $# -ge 2 ] || die "--device needs a name, as emu:gfx1151"
                device=$2
                shift 2 ;;
            *) die "test: unknown argument '$1', expected --full, --kernels or --device D" ;;
        esac
    done
    if [ "$kernels" = 1 ]; then
        GPTOSS_TEST_DEVICE=$device step cargo test --package gptoss-tests --test tests -- kernels:: runtime::
        return
    fi
    step cargo fmt --all -- --check
    quiet_step cargo clippy --quiet --workspace --all-targets -- -D warnings
    quiet_step cargo run --quiet --package gptoss-device-build -- --lint
    if cargo nextest --version >/dev/null 2>&1; then
        step cargo nextest run --workspace --no-fail-fast
        step cargo test --quiet --workspace --doc
    else
        step cargo test --workspace --no-fail-fast
    fi
    # The other emulated chip, unless the device under test was chosen. Whole models run on both in
    # the goldens; the engine's own tests do with --full.
    local other=(kernels:: runtime::)
    [ -z "${GPTOSS_TEST_FULL:-}" ] || other+=(gpu_engine::)
    [ -n "${GPTOSS_TEST_DEVICE:-}" ] || GPTOSS_TEST_DEVICE=emu:gfx1100x2 step \
        cargo test --quiet --package gptoss-tests --test tests -- "${other[@]}"
    GPTOSS_PROFILE=dev step tests/readme.sh
    RUSTDOCFLAGS="-D warnings" quiet_step cargo doc --quiet --workspace --no-deps
}

main "$@"
