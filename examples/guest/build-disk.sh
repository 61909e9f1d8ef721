#!/bin/bash
# Builds a whole disk that a BIOS boots, around a bare volume made by build-volume.sh: MBR, GRUB from the host's
# grub-pc-bin, one partition.
#
#   build-disk.sh VOLUME OUT [KERNEL_OPTIONS]
#
#   LBA 0       MBR: GRUB's boot.img, disk signature, partition table
#   LBA 1..     GRUB's core.img: drivers and the boot commands; there is no menu and no waiting
#   LBA 2048..  the volume
#
# VOLUME.json must lie next to VOLUME. OUT is sparse. Needs no root and no mounts.
set -euo pipefail

volume=$1
out=$2
kernel_options=${3-}

PATH=$PATH:/usr/sbin:/sbin
sector=512
partition_lba=2048
grub=/usr/lib/grub/i386-pc

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

field() { sed -n "s/^ *\"$1\": \"\(.*\)\".*/\1/p" "$volume.json"; }
version=$(field kernelVersion)
uuid=$(field fsUuid)

# GRUB's first parser reads this: plain commands only, and no comments. On a busy host, software emulation can fail the
# kernel's test of its timer: no_timer_check.
cat >"$work/core.cfg" <<END
serial --unit=0 --speed=115200
terminal_output serial
search.fs_uuid $uuid root
echo "GRUB: starting Linux $version"
linux /boot/vmlinuz-$version root=UUID=$uuid ro console=tty0 console=ttyS0,115200 quiet panic=1 no_timer_check $kernel_options
initrd /boot/initrd.img-$version
boot
END
grub-mkimage --format=i386-pc --directory="$grub" --config="$work/core.cfg" --prefix='(hd0,msdos1)/boot/grub' \
  --output="$work/core.img" biosdisk part_msdos ext2 search_fs_uuid serial terminal echo linux boot
((512 + $(stat --format=%s "$work/core.img") <= partition_lba * sector)) || { echo 'GRUB core is too large' >&2 && exit 1; }

disk=$work/disk
volume_bytes=$(stat --dereference --format=%s "$volume")
truncate --size $((partition_lba * sector + volume_bytes)) "$disk"
sfdisk --quiet "$disk" <<END
label: dos
label-id: 0x76656e72
start=$partition_lba, type=83, bootable
END
dd if="$grub/boot.img" of="$disk" bs=1 count=440 conv=notrunc status=none
# As grub-bios-setup does: no-ops for the jump that would distrust the drive number which the BIOS gives.
printf '\x90\x90' | dd of="$disk" bs=1 seek=$((0x66)) conv=notrunc status=none
dd if="$work/core.img" of="$disk" bs=$sector seek=1 conv=notrunc status=none
dd if="$volume" of="$disk" bs=1M seek=$((partition_lba * sector)) oflag=seek_bytes conv=notrunc,sparse status=none
cp --sparse=always "$disk" "$out.tmp.$$" && mv "$out.tmp.$$" "$out"
