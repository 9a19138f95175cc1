#!/bin/sh
# Runs in a host's root file system before it boots, as a package's installation would.
set -eu
echo "host_uuid = \"$(cat /etc/virt-attest-lab-host-uuid)\"" >>/etc/libvirt/libvirtd.conf
systemd-sysusers
if getent passwd virt-attest-verifier >/dev/null && [ -e /etc/pki/virt-attest/private/serverkey.pem ]; then
	chown virt-attest-verifier /etc/pki/virt-attest/private/serverkey.pem
fi
rm -f /etc/virt-attest-lab-setup /etc/virt-attest-lab-host-uuid
