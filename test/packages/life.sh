#!/bin/sh
# life.sh KIND DIR: the life of the packages on one KVM host, as its operator types it: install, attest, upgrade under a
# running VM, remove, purge. Runs as root on a Debian host that has libvirt, once; what it changes is not undone.
#   KIND  container: the physical TPM is a socket, logs are files, and files are measured by the lab
#         vm: /dev/tpmrm0, the kernel's IMA, AppArmor
#   DIR   old/*.deb, new/*.deb, vm.xml (a domain without a TPM that boots by itself), with KIND vm host.json: reference
#         values of all files that Debian's packages have put there, and new/*.json: those of the newer packages
# Ends with the line "LIFE: PASSED", or with what failed.
set -eu
kind=$1 dir=$2
name=$(hostname)
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
patience=60
[ "$kind" = container ] || patience=400

title() { printf '\n== %s (%s s)\n' "$*" "$(cut -d. -f1 /proc/uptime)"; }
fail() {
	printf 'LIFE: FAILED: %s\n' "$*"
	journalctl -k --no-pager -q 2>&1 | grep 'apparmor="DENIED"' | tail -n 40 || true
	journalctl --no-pager -q -n 60 -o short-monotonic 2>&1 || true
	exit 1
}
run() {
	printf '# %s\n' "$*"
	"$@" </dev/null || fail "$* (exit status $?)"
}
refused() { # COMMAND…: has to fail; what it says is left in $said
	printf '# %s\n' "$*"
	if said=$("$@" 2>&1 </dev/null); then
		printf '%s\n' "$said"
		fail "$* should have been refused"
	fi
	printf '%s\n' "$said"
}
soon() { # SECONDS COMMAND…: until it succeeds
	until=$(($(cut -d. -f1 /proc/uptime) + $1))
	shift
	printf '# until: %s\n' "$*"
	until said=$("$@" 2>&1 </dev/null); do
		[ "$(cut -d. -f1 /proc/uptime)" -lt "$until" ] || fail "no success in time: $*: $said"
		sleep 1
	done
}
is() { # WHAT GOT WANT
	[ "$2" = "$3" ] || fail "$1 is '$2', not '$3'"
	printf 'ok: %s\n' "$1"
}
has() { case $2 in *"$3"*) printf 'ok: %s\n' "$1" ;; *) fail "$1: '$2' has no '$3'" ;; esac }
pid() { systemctl show -P MainPID "$1"; }
# Every path of the system, but those of dpkg, apt, logs and caches themselves.
tree() {
	find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /root \
		-o -path /var/lib/dpkg -o -path /var/lib/apt -o -path /var/log -o -path /var/cache \) -prune -o -print | sort
}
uuid=$(sed -n 's:.*<uuid>\(.*\)</uuid>.*:\1:p' "$dir/vm.xml")
debs() { for p in virt-attest virt-attest-host virt-attest-verifier; do echo "$dir/$1/${p}"_*.deb; done; }
installs() { # DIR: as README says
	# shellcheck disable=SC2046 # file names without blanks
	run apt-get -q -y --no-install-recommends install $(debs "$1")
}

tree >/tmp/before
title "install $(ls "$dir"/old/virt-attest_*.deb)"
installs old
run systemctl is-active virt-attest-hostd.service virt-attest-verifierd.service
getent passwd virt-attest virt-attest-verifier
stat -c '%A %U %n' /etc/libvirt/hooks/qemu.d/* /var/lib/virt-attest/*
# This host has no documents and no man pages.
is "what differs from the packages" "$(dpkg -V virt-attest virt-attest-host virt-attest-verifier | grep -v -e /usr/share/doc/ -e /usr/share/man/ || true)" ""

title "the host enrols"
soon 60 sh -c "virt-attest host list | grep -q $name"
ek=$(virt-attest-hostd -identity | grep -oE '[0-9a-f]{64}' | head -n 1)
run virt-attest host approve "$name" --ek-sha256 "$ek"
# Not TRUSTED yet: without reference values, and with files that were written while they were measured.
soon 60 sh -c "virt-attest attest --host; case \$? in 0 | 1 | 5) true ;; *) false ;; esac"
if [ "$kind" = vm ]; then
	run virt-attest rim create host --base "$dir/host.json" --boot-log /sys/kernel/security/tpm0/binary_bios_measurements
	rims='host virt-attest virt-attest-host virt-attest-verifier'
	for p in virt-attest virt-attest-host virt-attest-verifier; do
		run virt-attest rim define "/usr/share/virt-attest/reference-values/$p.json"
	done
	# shellcheck disable=SC2086
	run virt-attest rim assign $rims "$name" --host
else
	run virt-attest rim create host --from-host "$name"
	run virt-attest rim assign host "$name" --host
fi
virt-attest attest --host || { virt-attest why --host "$name" || true; virt-attest log --host "$name" --ima --bad | head -n 60; fail "the host is not TRUSTED"; }

title "a VM that libvirt ran until now, with libvirt's own TPM"
sed "s:</devices>:<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm></devices>:" "$dir/vm.xml" >/tmp/vm1.xml
run virsh -q define /tmp/vm1.xml
vm=$(virsh -q domname "$uuid")
run virsh -q start "$vm"
run virsh -q destroy "$vm"
run virt-attest enable "$vm"
run virsh -q start "$vm"
soon $patience sh -c "virt-attest -q attest $vm >/tmp/verdict 2>&1; grep -q UNCONFIGURED /tmp/verdict && ! grep -q no-agent /tmp/verdict && virt-attest -q rim create web --from-domain $vm --replace"
run virt-attest rim assign web "$vm"
run virt-attest attest "$vm"
if [ "$kind" = vm ]; then
	title "confinement"
	for u in virt-attest-hostd virt-attest-verifierd "virt-attest-sidecar@$uuid" "virt-attest-swtpm@$uuid"; do
		has "$u is confined" "$(cat "/proc/$(pid "$u")/attr/current")" "virt-attest-"
	done
	has "QEMU is confined" "$(cat "/proc/$(cat "/run/libvirt/qemu/$vm.pid")/attr/current")" "libvirt-$uuid (enforce)"
fi

title "upgrade under the running VM"
qemu=$(cat "/run/libvirt/qemu/$vm.pid") swtpm=$(pid "virt-attest-swtpm@$uuid") sidecar=$(pid "virt-attest-sidecar@$uuid")
if [ "$kind" = vm ]; then
	# Beside those of the packages that are replaced: what ran before stays in the log.
	for p in virt-attest virt-attest-host virt-attest-verifier; do
		sed 's/"name": "/&next-/' "$dir/new/$p.json" >/tmp/next.json
		run virt-attest rim define /tmp/next.json
		rims="$rims next-$p"
	done
	# shellcheck disable=SC2086
	run virt-attest rim assign $rims "$name" --host
fi
installs new
is "QEMU's process" "$(cat "/run/libvirt/qemu/$vm.pid")" "$qemu"
is "swtpm's process" "$(pid "virt-attest-swtpm@$uuid")" "$swtpm"
[ "$(pid "virt-attest-sidecar@$uuid")" != "$sidecar" ] || fail "the old sidecar still runs"
is "the sidecar's program" "$(readlink "/proc/$(pid "virt-attest-sidecar@$uuid")/exe")" /usr/libexec/virt-attest/virt-attest-sidecar
is "what is in the hook's directory" "$(ls /etc/libvirt/hooks/qemu.d)" 50-virt-attest
soon 60 virt-attest attest "$vm"
printf '%s\n' "$said"

title "removal is refused while the VM runs"
refused apt-get -q -y remove virt-attest-host
has "it names the VM" "$said" "$vm (running)"
is "the VM" "$(virsh domstate "$vm")" running
run systemctl is-active "virt-attest-sidecar@$uuid" virt-attest-hostd

title "removal, and the VM starts without us, with its TPM"
run virsh -q destroy "$vm"
soon 20 sh -c "! systemctl -q is-active virt-attest-swtpm@$uuid"
state=$(sha256sum <"/var/lib/virt-attest/vtpm/$uuid/tpm2-00.permall")
run apt-get -q -y remove virt-attest-host
is "the vTPM's state" "$(sha256sum <"/var/lib/libvirt/swtpm/$uuid/tpm2/tpm2-00.permall")" "$state"
run virsh -q start "$vm"
is "the VM" "$(virsh domstate "$vm")" running
run virsh -q destroy "$vm"

title "what a VM without a TPM leaves is asked about"
run virsh -q undefine "$vm"
vm=vm2 uuid=$(echo "$uuid" | sed 's/.$/2/')
sed "s:<uuid>.*</uuid>:<uuid>$uuid</uuid>:; s:<name>.*</name>:<name>$vm</name>:" "$dir/vm.xml" >/tmp/vm2.xml
installs new
run virsh -q define /tmp/vm2.xml
run virt-attest enable "$vm"
run virsh -q start "$vm"
run virsh -q destroy "$vm"
run apt-get -q -y remove virt-attest-host
run virsh -q start "$vm"
run virsh -q destroy "$vm"
run apt-get -q -y purge virt-attest-host
[ -s "/var/lib/virt-attest/vtpm/$uuid/tpm2-00.permall" ] || fail "nobody was asked, and the vTPM is gone"
echo "ok: nobody answers, the vTPM stays"
installs new
printf 'virt-attest-host virt-attest-host/remove-vtpms boolean true\n' >/tmp/answer
run debconf-set-selections /tmp/answer
run apt-get -q -y purge virt-attest-host virt-attest virt-attest-verifier
[ ! -e /var/lib/virt-attest ] || fail "the answer was yes, and there is still: $(find /var/lib/virt-attest)"
echo "ok: somebody said yes, the vTPM is gone"

title "what is left"
tree >/tmp/after
left=$(comm -13 /tmp/before /tmp/after | grep -v -e '^/var/lib/libvirt/' -e '^/var/lib/systemd/' -e '^/etc/libvirt/qemu' -e '^/var/lib/private' || true)
printf '%s\n' "$left"
is "what is left" "$(printf '%s\n' "$left" | grep -v -e '^/var/lib/virt-attest-verifier' -e '^/etc/.*-$' -e '^/var/lib/swtpm-localca' -e '^$' || true)" ""

if [ "$kind" = vm ]; then
	title "the guest's package, in this machine, which is a VM with the channel"
	run apt-get -q -y --no-install-recommends install "$dir"/new/virt-attest-guest_*.deb
	soon 30 systemctl is-active virt-attest-guest.service
	has "the agent is confined" "$(cat "/proc/$(pid virt-attest-guest)/attr/current")" "virt-attest-guest (enforce)"
	run apt-get -q -y purge virt-attest-guest

	title "what AppArmor has denied"
	denied=$(journalctl -k --no-pager -q | grep 'apparmor="DENIED"' || true)
	printf '%s\n' "$denied"
	is "what AppArmor has denied virt-attest and its VMs" "$(printf '%s\n' "$denied" | grep -e virt-attest || true)" ""
fi
echo "LIFE: PASSED"
