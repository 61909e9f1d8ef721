#!/bin/bash
# Builds a raw ext4 image full of real files for benchmarks: neither random bytes nor zeros, so that compression and
# de-duplication meet what they meet in life.
#
#   build-data.sh OUT SIZE_MIB [CACHE_DIR]
#
# The files are a fixed pseudo-random choice from the generic kernel package (downloaded once) and from this machine's
# programs, libraries and documentation. Prints how full the image became; fails below 90 %. Needs no root and no mounts.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=$1
size_mib=$2
cache=${3:-$here/../../.cache/packages}

PATH=$PATH:/usr/sbin:/sbin
export LC_ALL=C E2FSPROGS_FAKE_TIME=1735689600
uuid=6b1d8f4e-5c1a-4f0e-9a53-646174610000

# Next to the result: /tmp may be a small file system in memory.
work=$(mktemp -d "$(dirname "$out")/.build-data-XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/kernel" "$work/tree/package" "$work/tree/machine"

bash "$here/../guest/fetch-packages.sh" generic "$cache" | while read -r package; do
  dpkg-deb --extract "$package" "$work/kernel"
done

# Lines "BYTES ROOT PATH", of plain files that this user may read. A few huge files must not be the whole sample.
candidates() {
  local root=$1
  shift
  # find complains, with a status, of folders that this user may not enter.
  (cd "$root" && find "$@" -xdev -type f -readable -size +0 ! -name '*[[:cntrl:]]*' \
    -size "-$((size_mib * 1024 / 20))k" -printf "%s $root %p\n" 2>/dev/null || true) | sort -k 3
}

pseudo_random_bytes() {
  openssl enc -aes-128-ctr -nosalt -K "${uuid//-/}" -iv 00000000000000000000000000000000 </dev/zero 2>/dev/null
}

# Chooses up to 98 % of the image: the file system takes the rest for itself. Files and folders cost whole 4 KiB,
# and 384 bytes of inode and folder entry.
choose() {
  shuf --random-source=<(pseudo_random_bytes) |
    awk -v limit=$((size_mib * 1024 * 1024 / 100 * 98)) '
      {
        bytes = int(($1 + 4095) / 4096) * 4096 + 384
        folder = $0
        sub(/^[^ ]+ /, "", folder)
        while (sub(/\/[^\/]*$/, "", folder) && !(folder in seen)) { seen[folder]; bytes += 4096 + 384 }
        if (total + bytes <= limit) { total += bytes; print }
      }'
}

{
  candidates "$work/kernel" .
  candidates / usr/bin usr/lib usr/share
} >"$work/candidates"
choose <"$work/candidates" >"$work/chosen"

copy_chosen() {
  local root=$1 target=$2
  awk -v root="$root" '$2 == root { sub(/^[^ ]+ [^ ]+ /, ""); print }' "$work/chosen" |
    (cd "$root" && cpio --quiet --pass-through --make-directories --preserve-modification-time --no-preserve-owner \
      "$target")
}
copy_chosen "$work/kernel" "$work/tree/package"
copy_chosen / "$work/tree/machine"
files=$(wc -l <"$work/chosen")
inodes=$(find "$work/tree" | wc -l)

truncate --size "${size_mib}M" "$work/image"
mke2fs -q -t ext4 -b 4096 -O ^has_journal,^resize_inode -m 0 -N $((inodes + 64)) -U "$uuid" -L data \
  -E "lazy_itable_init=0,root_owner=0:0,hash_seed=$uuid" -d "$work/tree" "$work/image"

fill=$(dumpe2fs -h "$work/image" 2>/dev/null |
  awk -F ': *' '/^Block count/ { all = $2 } /^Free blocks/ { free = $2 } END { printf "%.1f", (all - free) * 100 / all }')
if ! awk -v fill="$fill" 'BEGIN { exit fill < 90 }'; then
  echo "only $fill % full: this machine has too few files for $size_mib MiB" >&2
  exit 1
fi
mv "$work/image" "$out"
echo "$out: $size_mib MiB, $files files, $fill % full"
