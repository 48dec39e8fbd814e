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

kernels() {
    (cd "$root" && cargo run --quiet --profile "$profile" --package gptoss-device-build -- "$@")
}

# The program has the kernels embedded that were built before it. Where they cannot be built, the
# CPU engine still runs, and a GPU is refused with what is missing.
run_model() {
    if [ ! -s "$root/target/kernels/index" ]; then
        echo "run.sh: no GPU kernels yet, building them once (./run.sh build)" >&2
        kernels >&2 || true
    fi
    gptoss run "$@"
}

# The kernels of an emulated chip among the arguments, when there are none of it.
emulated_chip() {
    local argument chip
    for argument in "$@"; do
        [[ $argument =~ ^(--device=)?emu:(gfx[0-9a-f]+) ]] || continue
        chip=${BASH_REMATCH[2]}
        grep -qs "^$chip\." "$root/target/kernels/index" && continue
        echo "run.sh: no kernels of $chip yet, building them once (./run.sh build --arch $chip)" >&2
        kernels --arch "$chip" >&2 || true
    done
}

gptoss() {
    local folder
    emulated_chip "$@"
    [ "$profile" = dev ] && folder=debug || folder=$profile
    (cd "$root" && cargo build --quiet --profile "$profile" --package gptoss --bin gptoss)
    # Paths among the arguments are the caller's.
    exec "${CARGO_TARGET_DIR:-$root/target}/$folder/gptoss" "$@"
}

main() {
    [ $# -gt 0 ] || { usage >&2; exit 2; }
    local command=$1
    shift
    case $command in
        -h | --help | help) usage ;;
        build) build "$@" ;;
        test) run_tests "$@" ;;
        run) run_model "$@" ;;
        export | decode | synth | golden | bench | codegen | doctor) gptoss "$command" "$@" ;;
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
  --arch LIST   chips separated by commas, or all; without it, the GPUs found here and gfx1151
TEXT
                return ;;
            --arch)
                [ $# -ge 2 ] || die "--arch needs a list of chips, as gfx1151,gfx942"
                arch=$2
                shift 2 ;;
            *) die "build: unknown argument '$1', expected --arch LIST" ;;
        esac
    done
    kernels ${arch:+--arch "$arch"}
    cargo build --profile "$profile" --package gptoss --bin gptoss
}

step() {
    echo "== $*"
    "$@"
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
  --full        the long sweeps too
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
    step cargo clippy --quiet --workspace --all-targets -- -D warnings
    if cargo nextest --version >/dev/null 2>&1; then
        step cargo nextest run --workspace --no-fail-fast
        step cargo test --quiet --workspace --doc
    else
        step cargo test --workspace --no-fail-fast
    fi
    # The other emulated chip, unless the device under test was chosen.
    [ -n "${GPTOSS_TEST_DEVICE:-}" ] || GPTOSS_TEST_DEVICE=emu:gfx1100x2 step \
        cargo test --quiet --package gptoss-tests --test tests -- gpu_engine:: kernels:: runtime::
    GPTOSS_PROFILE=dev step tests/readme.sh
    RUSTDOCFLAGS="-D warnings" step cargo doc --quiet --workspace --no-deps
}

main "$@"
