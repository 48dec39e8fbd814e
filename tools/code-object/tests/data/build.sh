#!/usr/bin/env bash
# Rebuilds the data of this folder from sample.hip with Debian's clang-22, llvm-22 and lld-22.
set -euo pipefail
cd "$(dirname "$0")"
for chip in gfx90a gfx942 gfx1151 gfx1201; do
    clang-22 -x hip --offload-device-only --no-gpu-bundle-output --offload-arch="$chip" \
        -nogpuinc -nogpulib -O2 -fuse-cuid=none -Xoffload-linker -s \
        --ld-path=/usr/bin/ld.lld-22 sample.hip -o "sample.$chip.co"
    chmod -x "sample.$chip.co"
done
# A bundle whose entries hold their own chip's name.
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
: >"$work/host"
printf gfx1151 >"$work/gfx1151"
printf gfx942 >"$work/gfx942"
clang-offload-bundler-22 -type=o \
    -targets=host-x86_64-unknown-linux-gnu,hipv4-amdgcn-amd-amdhsa--gfx1151,hipv4-amdgcn-amd-amdhsa--gfx942:sramecc+:xnack- \
    -input="$work/host" -input="$work/gfx1151" -input="$work/gfx942" -output=names.bundle
