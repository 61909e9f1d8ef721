# One disk's whole life under names that no program likes. $1: an empty folder; $2: Node; $3: the tool; $4: a name, with escapes as printf has them.
set -eu
odd=$(printf -- "$4x")
odd=${odd%x}
veneer() { "$node" "$tool" "$@"; }
refuses() { if veneer "$@" >said 2>&1; then echo "not refused: $*"; exit 1; fi; cat said; [ "$(wc -l <said)" = 1 ]; }
node=$2 tool=$3
folder="$1/folder$odd" mount="$1/mount$odd" away="$1/away$odd"
mkdir "$folder" "$mount" "$away"
trap 'umount -l "$mount" 2>/dev/null || true' EXIT

# Relative paths, from a current folder of such a name.
cd "$folder"
head -c 1048576 /dev/urandom >"disk$odd.raw"
veneer image create "disk$odd.raw" "vm$odd.spf"
printf changed | dd of="disk$odd.raw" bs=1 seek=70000 conv=notrunc status=none
veneer image create "disk$odd.raw" "vm$odd.spi" --parent "vm$odd.spf"
veneer image verify "vm$odd.spi"
veneer image info "vm$odd.spi"
veneer image extract "vm$odd.spi" "out$odd.raw"
cmp "out$odd.raw" "disk$odd.raw"
for format in raw qcow2 vhdx vdi; do veneer plugin create "vm$odd.spi" "vm$odd.$format"; done
veneer plugin show "vm$odd.raw"
veneer differencing create "vm$odd.raw" "child$odd.qcow2"
mv "vm$odd.spf" "$away"
refuses image verify "vm$odd.spi"
mv "$away/vm$odd.spf" .
veneer chain list .

cd "$1"
veneer mount "$folder" "$mount"
cmp "$mount/vm$odd.raw" "$folder/disk$odd.raw"
for format in qcow2 vhdx; do qemu-img compare -f $format -F raw "$mount/vm$odd.$format" "$folder/disk$odd.raw"; done
qemu-img compare -f qcow2 -F raw "$mount/child$odd.qcow2" "$folder/disk$odd.raw"
veneer image create "$mount/child$odd.qcow2" "$away/child$odd.spf"
veneer image extract "$away/child$odd.spf" "$away/child$odd.raw"
cmp "$away/child$odd.raw" "$folder/disk$odd.raw"
printf written | tee "$away/written" | dd of="$mount/vm$odd.raw" bs=1 seek=5000 conv=notrunc status=none
dd if="$away/written" of="$folder/disk$odd.raw" bs=1 seek=5000 conv=notrunc status=none
veneer status "$mount"
veneer fill start --no-verify "$mount/vm$odd.raw"
for try in $(seq 200); do
  veneer fill status "$folder/vm$odd.raw" >said
  if grep -q ': complete' said; then break; fi
  sleep 0.2
done
veneer finalize "$mount/vm$odd.raw"
cmp "$mount/vm$odd.raw" "$folder/disk$odd.raw"
veneer unmount "$mount"
! mountpoint -q "$mount"
[ -e "$folder/vm$odd.raw.finalized" ]
cmp "$folder/vm$odd.raw" "$folder/disk$odd.raw"
cp "$folder/disk$odd.raw" "$away"
rm "$folder"/vm"$odd".qcow2 "$folder"/vm"$odd".vhdx "$folder"/vm"$odd".vdi "$folder"/child*
veneer image create "$folder/disk$odd.raw" "$folder/new$odd.spi" --parent "$folder/vm$odd.spi"
veneer chain prune "$folder" --keep-last 1
veneer image extract "$folder/new$odd.spi" "$away/new$odd.raw"
cmp "$away/new$odd.raw" "$folder/disk$odd.raw"
echo all is well
