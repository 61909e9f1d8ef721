#!/bin/bash
# Makes a clone ready to run, test and measure: Debian packages, Node packages, the build.
#
#   scripts/setup.sh          everything
#   scripts/setup.sh --run    leave out the Debian packages that only tests and benchmarks need
#
# Safe to repeat: what is in place is left alone, and a line is printed only for a step that does something.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

run_packages=(
  libfuse2 fuse3 kmod                                             # FUSE mounts
  qemu-system-x86 qemu-system-data qemu-utils seabios ovmf        # guests
  grub-pc-bin grub-efi-amd64-bin grub-common                      # boot loaders for volumes without one
  e2fsprogs cpio xz-utils dpkg openssl fdisk                      # example guests
)
test_packages=(
  python3-cryptography                                            # the independent reader of encrypted images
  libvhdi-utils python3-libvhdi libvmdk-utils libqcow-utils 7zip  # independent readers of the native formats
  xmount ewf-tools libnbd-bin nbdkit                              # peers to compare with
  gdisk dosfstools mtools nasm                                    # partition tables, EFI system partitions, boot code
  xfsprogs btrfs-progs ntfs-3g lvm2 mmdebstrap                    # makers and judges of guests' file systems
  libhivex-bin libwin-hivex-perl chntpw libregf-utils             # registry hives
  sleuthkit                                                       # an independent reader of NTFS
  samba smbclient strace fio stress-ng                                   # network sources, faults, benchmarks
)
# Where there is no Debian package manager, these commands stand for the packages.
run_commands=(fusermount3 qemu-system-x86_64 qemu-img grub-mkimage mke2fs cpio xz openssl sfdisk)

say() { echo "setup: $*"; }
has() { command -v "$1" >/dev/null; }
fail() {
  say "$*" >&2
  exit 1
}

# Shows what a command wrote only if it failed.
quietly() {
  local output
  output=$("$@" 2>&1 </dev/null) || fail "$* failed: $output"
}

# The project's own node must neither choose the Node version for npm nor be running while npm ci replaces it.
bin=$PWD/node_modules/.bin
PATH=:$PATH:
while [[ $PATH == *":$bin:"* ]]; do PATH=${PATH//":$bin:"/:}; done
PATH=${PATH#:}
PATH=${PATH%:}:/usr/sbin:/sbin
export PATH

wanted=("${run_packages[@]}")
case ${1-} in
  '') wanted+=("${test_packages[@]}") ;;
  --run) ;;
  *) fail 'usage: scripts/setup.sh [--run]' ;;
esac

# Prints the wanted packages that are not installed. A package counts under the names it provides too:
# newer releases have libfuse2t64 for libfuse2.
missing_packages() {
  # shellcheck disable=SC2016 # dpkg-query's own fields
  dpkg-query --show --showformat '${db:Status-Status} ${Package}, ${Provides}\n' | awk -v wanted="${wanted[*]}" '
    sub(/^installed /, "") {
      gsub(/\([^)]*\)|,/, " ")
      for (i = 1; i <= NF; i++) installed[$i] = 1
    }
    END {
      count = split(wanted, names, " ")
      for (i = 1; i <= count; i++) if (!(names[i] in installed)) print names[i]
    }'
}

system_packages() {
  local absent=() command
  if ! has apt-get || ! has dpkg-query; then
    for command in "${run_commands[@]}"; do has "$command" || absent+=("$command"); done
    ((${#absent[@]} == 0)) || fail "this is not Debian: install these commands yourself (and libfuse.so.2): ${absent[*]}"
    return
  fi
  mapfile -t absent < <(missing_packages)
  ((${#absent[@]})) || return 0
  ((EUID == 0)) ||
    fail "Debian packages are missing; run: sudo apt-get update && sudo apt-get install -y --no-install-recommends ${absent[*]}"
  say "installing Debian packages: ${absent[*]}"
  export DEBIAN_FRONTEND=noninteractive
  quietly apt-get -qq update
  quietly apt-get -qq install -y --no-install-recommends "${absent[@]}"
}

node_packages() {
  local major stamp=node_modules/.setup-stamp key
  has node && has npm || fail 'Node.js 20 or newer with npm is needed: https://nodejs.org/'
  major=$(node -p 'process.versions.node.split(".")[0]')
  ((major >= 20)) || fail "Node.js 20 or newer is needed; this is $(node --version) ($(command -v node))"
  key="$(sha256sum <package-lock.json) node $major"
  [[ -f $stamp && $(<"$stamp") == "$key" ]] && return
  # Someone who ran npm install by hand has what the lock file says: npm writes its hidden copy last.
  if [[ node_modules/.package-lock.json -nt package-lock.json && (! -f $stamp || $(<"$stamp") == *" node $major") ]]; then
    echo "$key" >"$stamp"
    return
  fi
  say 'installing Node packages (npm ci)'
  # engines names the Node that runs the project, which is itself one of the packages: no warning about npm's own.
  quietly npm ci --no-fund --no-audit --loglevel=error
  "$bin/node" --version >/dev/null || fail "the node package has no binary: npm's install scripts are switched off"
  echo "$key" >"$stamp"
}

build() {
  local stamp=dist/.built
  [[ -n $(find src -name '*.ts' -print -quit 2>/dev/null) ]] || return 0
  # Folders are looked at as well: a file that was removed leaves its trace there.
  if [[ -f $stamp && -z $(find src tsconfig.json scripts/build.ts package-lock.json -newer "$stamp" -print -quit) ]]; then
    return
  fi
  say 'building'
  mkdir -p dist
  # The stamp is as old as the start of the build: a file edited meanwhile is newer than it.
  touch dist/.build-start
  npm run --silent build </dev/null
  mv dist/.build-start "$stamp"
}

system_packages
node_packages
build
