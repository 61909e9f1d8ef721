#!/bin/bash
# Builds the smallest Linux guest that boots, as a bare volume: a kernel and busybox from Debian packages.
#
#   build-volume.sh FLAVOUR(cloud|generic) OUT [CACHE_DIR] [SIZE_MIB] [FILE_SYSTEM(ext4|xfs|btrfs)]
#
# Writes OUT and, next to it, OUT.json with what the guest is going to report. Without SIZE_MIB an ext4 volume (the default)
# has 16 MiB of free space, and others the least that they can be. Needs no root and no mounts. The same packages and
# scripts give the same ext4 volume, byte for byte.
# The cloud kernel has no AHCI driver: on an AHCI disk that guest finds no root, always.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
flavour=$1
out=$2
cache=${3:-$here/../../.cache/packages}
size_mib=${4-}
file_system=${5-ext4}

PATH=$PATH:/usr/sbin:/sbin
export LC_ALL=C
umask 022

# Everything random or dependent on the clock in the result comes from here.
uuid=6b1d8f4e-5c1a-4f0e-9a53-76656e656572
export SOURCE_DATE_EPOCH=1735689600 E2FSPROGS_FAKE_TIME=1735689600
payload_bytes=$((8 << 20))
payload_key=76656e6565722d7061796c6f61642d31

# The drivers for every bus that a guest may be given.
modules=(virtio_pci virtio_blk virtio_scsi ahci ata_piix ata_generic sd_mod nvme mptspi mptsas vmw_pvscsi hv_storvsc
  ext4 crc32c_generic crc32c_intel)
[[ $file_system == ext4 ]] || modules+=("$file_system")

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# In the order in which they must be loaded, each once.
module_files() {
  local module
  for module in "${modules[@]}"; do
    # A flavour does not have them all; some are built in.
    modprobe --dirname "$work/packages" --set-version "$version" --show-depends "$module" 2>/dev/null || true
  done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }'
}

build_initramfs() {
  local tree=$work/initramfs file name
  mkdir -p "$tree"/{bin,dev,proc,sys,mnt,modules}
  install -m 755 "$busybox" "$tree/bin/busybox"
  install -m 755 "$here/initramfs-init" "$tree/init"
  module_files | while read -r file; do
    name=$(basename "$file")
    cp "$file" "$tree/modules/$name"
    if [[ $name == *.xz ]]; then xz -d "$tree/modules/$name" && name=${name%.xz}; fi
    echo "$name"
  done >"$work/order"
  [[ -s $work/order ]] || { echo "no kernel modules found for $version" >&2 && exit 1; }
  mv "$work/order" "$tree/modules/order"
  set_times "$tree"
  (cd "$tree" && find . | sort | cpio --quiet --create --format=newc --owner=0:0 --reproducible) | gzip -9n
}

build_root() {
  local tree=$1
  mkdir -p "$tree"/{boot,bin,sbin,etc,proc,sys,dev,tmp}
  cp "$work/packages/boot/vmlinuz-$version" "$tree/boot/"
  build_initramfs >"$tree/boot/initrd.img-$version"
  install -m 755 "$busybox" "$tree/bin/busybox"
  install -m 755 "$here/init" "$tree/sbin/init"
  local applet
  for applet in sh mount grep tail sha256sum sleep sync poweroff; do ln -s busybox "$tree/bin/$applet"; done
  head -c "$payload_bytes" /dev/zero |
    openssl enc -aes-128-ctr -nosalt -K "$payload_key" -iv 00000000000000000000000000000000 >"$tree/payload.bin"
  set_times "$tree"
}

set_times() { find "$1" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +; }

# mke2fs copies what it cannot be told to leave out: owners and change times of the builder's files.
normalize_inodes() {
  local tree=$1 volume=$2 path field
  (cd "$tree" && find . -mindepth 1 -printf '/%P\n' | sort) | while read -r path; do
    printf 'set_inode_field "%s" uid 0\nset_inode_field "%s" gid 0\n' "$path" "$path"
    for field in atime ctime mtime crtime; do
      printf 'set_inode_field "%s" %s @%s\n' "$path" "$field" "$SOURCE_DATE_EPOCH"
    done
  done >"$work/normalize"
  # It exits with 0 whatever happens; its echo of the commands starts with its name.
  ! debugfs -w -f "$work/normalize" "$volume" 2>&1 | grep -v '^debugfs' >&2
}

packages=$(bash "$here/fetch-packages.sh" "$flavour" "$cache")
mkdir "$work/packages"
while read -r package; do dpkg-deb --extract "$package" "$work/packages"; done <<<"$packages"
version=$(ls "$work/packages/lib/modules" 2>/dev/null || ls "$work/packages/usr/lib/modules")
busybox=$(find "$work/packages" -path '*bin/busybox')
# Newer packages have /usr/lib only; modprobe looks in /lib.
[[ -d $work/packages/lib ]] || ln -s usr/lib "$work/packages/lib"
depmod --basedir "$work/packages" "$version"

build_root "$work/root"
payload_sha256=$(sha256sum <"$work/root/payload.bin" | cut -d ' ' -f 1)

make_ext4() {
  local used_kib
  if [[ -z $size_mib ]]; then
    # Each file in whole 4 KiB, and about 1 MiB of the file system's own structures.
    used_kib=$(find "$work/root" -printf '%s\n' | awk '{ kib += int(($1 + 4095) / 4096) * 4 } END { print kib + 1024 }')
    size_mib=$(((used_kib + 1023) / 1024 + 16))
  fi
  truncate --size "${size_mib}M" "$work/volume"
  mke2fs -q -t ext4 -b 4096 -O ^has_journal -m 0 -N 256 -U "$uuid" -L guest \
    -E "lazy_itable_init=0,root_owner=0:0,hash_seed=$uuid" -d "$work/root" "$work/volume"
  normalize_inodes "$work/root" "$work/volume"
  e2fsck -fn "$work/volume" >"$work/e2fsck.log" 2>&1 || { cat "$work/e2fsck.log" >&2 && exit 1; }
}

# What mkfs.xfs copies a tree from: a line for each file, "$" behind those of a folder.
xfs_prototype() {
  local path name mode
  for path in "$1"/*; do
    name=$(basename "$path")
    if [[ -L $path ]]; then
      echo "$name l--777 0 0 $(readlink "$path")"
    elif [[ -d $path ]]; then
      echo "$name d--755 0 0"
      xfs_prototype "$path"
      echo '$'
    else
      mode=$(stat --format=%a "$path")
      echo "$name ---$mode 0 0 $path"
    fi
  done
}

make_xfs() {
  size_mib=${size_mib:-320}
  truncate --size "${size_mib}M" "$work/volume"
  { printf '/\n0 0\nd--755 0 0\n' && shopt -s nullglob && xfs_prototype "$work/root" && echo '$'; } >"$work/prototype"
  mkfs.xfs -q -m "uuid=$uuid" -L guest -p "$work/prototype" "$work/volume"
}

make_btrfs() {
  size_mib=${size_mib:-160}
  truncate --size "${size_mib}M" "$work/volume"
  mkfs.btrfs -q -U "$uuid" -L guest --rootdir "$work/root" "$work/volume"
}

"make_$file_system"

cat >"$work/json" <<END
{
  "flavour": "$flavour",
  "kernelVersion": "$version",
  "fsUuid": "$uuid",
  "payloadSha256": "$payload_sha256",
  "sizeBytes": $((size_mib << 20))
}
END
# Whoever reads the old files meanwhile keeps them.
cp --sparse=always "$work/volume" "$out.tmp.$$" && mv "$out.tmp.$$" "$out"
cp "$work/json" "$out.json.tmp.$$" && mv "$out.json.tmp.$$" "$out.json"
