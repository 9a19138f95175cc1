#!/bin/sh
# hostvm.sh OLD NEW OUT: a whole Debian 12 KVM host as a VM, with measured boot, IMA, AppArmor and a TPM at /dev/tpmrm0, and the life
# of the packages on it (life.sh), VMs in it included. Everything is emulated: no KVM, no TPM, no network is needed; root is, for
# the host's file system. OUT/console.log keeps all of it. Ten to fifteen minutes on two processors.
set -eu
[ $# = 3 ] || { echo "usage: hostvm.sh OLD NEW OUT" >&2; exit 2; }
old=$1 new=$2
out=$(mkdir -p "$3" && cd "$3" && pwd)
cache=${XDG_CACHE_HOME:-/var/cache}/virt-attest-lab
packages=systemd,systemd-sysv,udev,dbus,kmod,procps,linux-image-amd64,initramfs-tools,apparmor,libvirt-daemon-system,libvirt-clients,qemu-system-x86,swtpm,swtpm-tools
limit=${LIMIT:-2400}

# The host as Debian's packages make it, once.
key=$(printf '%s' "$packages 1" | sha256sum | cut -c1-12)
base=$cache/hostvm-bookworm-$key
mkdir -p "$cache"
exec 9>"$base.lock"
flock 9
if [ ! -d "$base" ]; then
	echo "building the host with mmdebstrap, once: $base"
	apt-config dump --no-empty --format '%F "%v";%n' Acquire | grep -E '^Acquire::(https?|ftp|Retries|Check-)' >"$out/apt.conf" || true
	set -- --mode=root --variant=minbase "--include=$packages" --dpkgopt='path-exclude=/usr/share/doc/*' \
		--dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*'
	while read -r line; do set -- "$@" "--aptopt=$line"; done <"$out/apt.conf"
	set -- "$@" bookworm "$base.part"
	grep -hE '^deb .* bookworm' /etc/apt/sources.list /etc/apt/sources.list.d/*.list >"$out/sources.list" 2>/dev/null || true
	if [ -s "$out/sources.list" ]; then
		set -- "$@" "$out/sources.list"
	elif ls /etc/apt/sources.list.d/*.sources >/dev/null 2>&1; then
		for f in /etc/apt/sources.list.d/*.sources; do set -- "$@" "$f"; done
	fi
	rm -rf "$base.part"
	unshare --mount --pid --fork --kill-child --mount-proc mmdebstrap "$@" >"$out/mmdebstrap.log" 2>&1 || { tail -n 20 "$out/mmdebstrap.log"; exit 1; }
	mv "$base.part" "$base"
fi
flock -s 9

work=$(mktemp -d "$out/.hostvm-XXXXXX")
pids=
cleanup() {
	# shellcheck disable=SC2086 # a list of processes
	[ -z "$pids" ] || kill $pids 2>/dev/null || true
	wait 2>/dev/null || true
	rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 1' HUP INT TERM

kernel=$(find "$base/boot" -name 'vmlinuz-*' | sort | tail -n 1)
initrd=$(find "$base/boot" -name 'initrd.img-*' | sort | tail -n 1)
echo "reference values of what Debian's packages have put there"
bin/virt-attest -q rim create host --progress none --rootfs "$base" --initramfs "$initrd" --exclude '/etc/**' --exclude '/var/**' --exclude '/boot/**' --exclude '/root/**' \
	--file "$work/host.json"
# The policy tcb measures whatever root reads, also what is being written.
sed -i 's/"violations": "fail"/"violations": "warn"/' "$work/host.json"

# What differs from host to host, and the machine's work, as one more tree.
tree=$work/tree
go run ./test/packages -new "$new" -stage "$work/stage"
mkdir -p "$tree/root/old" "$tree/root/new" "$tree/var/lib/libvirt/images" "$tree/etc/systemd/system/multi-user.target.wants" "$tree/etc/systemd/journald.conf.d"
cp "$work/stage/life.sh" "$work/stage/vm.xml" "$work/host.json" "$tree/root/"
cp "$work/stage/vmlinuz" "$work/stage/initrd" "$work/stage/root.squashfs" "$tree/var/lib/libvirt/images/"
cp "$old"/*.deb "$tree/root/old/"
cp "$new"/*.deb "$tree/root/new/"
dpkg-deb --fsys-tarfile "$new"/virt-attest-verifier_*_amd64.deb | tar -C "$work" -x ./usr/share/virt-attest/reference-values
cp "$work"/usr/share/virt-attest/reference-values/*.json "$tree/root/new/"
echo kvm >"$tree/etc/hostname"
printf '127.0.0.1 localhost kvm\n' >"$tree/etc/hosts"
tr -d - </proc/sys/kernel/random/uuid >"$tree/etc/machine-id"
ln -s /dev/null "$tree/etc/systemd/system/libvirtd-tcp.socket"
ln -s /dev/null "$tree/etc/systemd/system/libvirtd-tls.socket"
ln -s ../life.service "$tree/etc/systemd/system/multi-user.target.wants/life.service"
cat >"$tree/etc/systemd/system/life.service" <<'U'
[Unit]
Description=The life of the packages
After=libvirtd.service systemd-udev-settle.service apparmor.service network.target
[Service]
Type=idle
ExecStart=sh -c 'sh /root/life.sh vm /root; systemctl poweroff'
StandardOutput=file:/dev/ttyS0
StandardError=inherit
U
image=$work/disk
tar -C "$tree" --owner=0 --group=0 -c . >"$work/tree.tar"
cp -a "$base" "$work/root"
tar -C "$work/root" --keep-directory-symlink --no-overwrite-dir -xf "$work/tree.tar"
mke2fs -q -t ext4 -L root -d "$work/root" "$image" 5G
rm -rf "$work/root"

mkdir "$work/tpm"
swtpm socket --tpm2 --tpmstate "dir=$work/tpm" --ctrl "type=unixio,path=$work/tpm.sock" --terminate &
pids=$!
until [ -S "$work/tpm.sock" ]; do sleep 0.1; done
echo "the host boots; its console is $out/console.log"
: >"$out/console.log"
timeout "$limit" qemu-system-x86_64 -name kvm -machine q35 -accel tcg,thread=multi -cpu max -smp 2 -m 3072 -display none -no-reboot -nodefaults \
	-serial "file:$out/console.log" -kernel "$kernel" -initrd "$initrd" \
	-append "console=ttyS0 root=/dev/vda rw quiet ima_policy=tcb ima_hash=sha256 systemd.show_status=false" \
	-drive "file=$image,format=raw,if=virtio,cache=unsafe" \
	-chardev "socket,id=tpm,path=$work/tpm.sock" -tpmdev emulator,id=tpm0,chardev=tpm -device tpm-crb,tpmdev=tpm0 \
	-device virtio-serial -chardev "socket,id=agent,path=$work/agent.sock,server=on,wait=off" -device virtserialport,chardev=agent,name=org.virt_attest.0 &
qemu=$!
pids="$pids $qemu"
shown=0
while kill -0 "$qemu" 2>/dev/null; do
	sleep 2
	lines=$(wc -l <"$out/console.log")
	[ "$lines" = "$shown" ] || sed -n "$((shown + 1)),${lines}p" "$out/console.log" | tr -d '\r'
	shown=$lines
done
grep -q '^LIFE: PASSED' "$out/console.log" || { echo "host-vm-test: failed; all of it is in $out/console.log" >&2; exit 1; }
