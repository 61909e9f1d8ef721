#!/bin/bash
# Builds the files of a small Linux guest whose initramfs knows one disk controller only, as that of a machine that was installed for it
# (MODULES=dep): it loads what the hardware asks for, by modprobe, from what it has.
#
#   build-guest.sh FLAVOUR(cloud|generic) OUT_FOLDER CACHE_DIR
#
# Writes OUT_FOLDER/root (what belongs on the guest's root volume) and OUT_FOLDER/version.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
examples=$here/../../../examples/guest
flavour=$1
out=$2
cache=$3
PATH=$PATH:/usr/sbin:/sbin
export LC_ALL=C
umask 022

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
packages=$(bash "$examples/fetch-packages.sh" "$flavour" "$cache")
while read -r package; do dpkg-deb --extract "$package" "$work/packages"; done <<<"$packages"
version=$(ls "$work/packages/lib/modules" 2>/dev/null || ls "$work/packages/usr/lib/modules")
[[ -d $work/packages/lib ]] || ln -s usr/lib "$work/packages/lib"
busybox=$(find "$work/packages" -path '*bin/busybox')
source=$work/packages/lib/modules/$version

root=$out/root
mkdir -p "$root"/{boot/grub,bin,sbin,etc,proc,sys,dev,tmp} "$root/lib/modules/$version/kernel"
# What any controller may need, and its indexes, as on a real root.
for folder in drivers/ata drivers/block drivers/nvme drivers/scsi drivers/virtio drivers/hv drivers/message block fs/ext4 fs/jbd2 fs/mbcache.ko lib crypto arch; do
  [[ -e $source/kernel/$folder ]] || continue
  mkdir -p "$root/lib/modules/$version/kernel/$(dirname "$folder")"
  cp -r "$source/kernel/$folder" "$root/lib/modules/$version/kernel/$folder"
done
cp "$source"/modules.{builtin,builtin.modinfo,order} "$root/lib/modules/$version/"
depmod --basedir "$root" "$version"

initramfs=$work/initramfs
mkdir -p "$initramfs"/{bin,dev,proc,sys,mnt} "$initramfs/lib/modules/$version"
install -m 755 "$busybox" "$initramfs/bin/busybox"
install -m 755 "$here/initramfs-init" "$initramfs/init"
for module in ata_piix sd_mod ext4 crc32c_generic crc32c_intel; do
  modprobe --dirname "$root" --set-version "$version" --show-depends "$module" 2>/dev/null || true
done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r file; do
  install -D -m 644 "$file" "$initramfs/lib/modules/$version/${file#*/lib/modules/"$version"/}"
done
cp "$source"/modules.{builtin,builtin.modinfo,order} "$initramfs/lib/modules/$version/"
depmod --basedir "$initramfs" "$version"
(cd "$initramfs" && find . | sort | cpio --quiet --create --format=newc --owner=0:0) | gzip -9n >"$root/boot/initrd.img-$version"

cp "$work/packages/boot/vmlinuz-$version" "$root/boot/"
install -m 755 "$busybox" "$root/bin/busybox"
{
  sed '/^set -- .*payload.bin/i while read -r name rest; do [ -b "$name" ] \&\& echo "FSTAB $name is there" || echo "FSTAB $name is missing"; done </etc/fstab' "$examples/init"
} >"$root/sbin/init"
chmod 755 "$root/sbin/init"
for applet in sh mount grep tail sha256sum sleep sync poweroff; do ln -sf busybox "$root/bin/$applet"; done
head -c $((1 << 20)) /dev/urandom >"$root/payload.bin"
printf '/dev/sda1 / ext4 defaults 0 1\n' >"$root/etc/fstab"
printf 'PRETTY_NAME="Test GNU/Linux 1 (%s)"\nVERSION_ID="1"\n' "$flavour" >"$root/etc/os-release"
cat >"$root/boot/grub/grub.cfg" <<END
set default="0"
set timeout=0
menuentry 'Test GNU/Linux' --class gnu-linux {
	load_video
	insmod gzio
	echo	'Loading Linux $version ...'
	linux	/boot/vmlinuz-$version root=/dev/sda1 ro quiet panic=1 no_timer_check console=ttyS0,115200
	echo	'Loading initial ramdisk ...'
	initrd	/boot/initrd.img-$version
}
END
echo "$version" >"$out/version"
