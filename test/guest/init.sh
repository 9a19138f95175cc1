#!/bin/sh
# The guest's whole init: file systems, network, agent, a root shell on the console. The shell
# reads through a pipe: it neither echoes nor prompts.
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t securityfs securityfs /sys/kernel/security
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
read -r line < /proc/cmdline
word() { case " $line " in *" $1="*) w="${line##*"$1"=}"; echo "${w%% *}" ;; esac; }
ip link set lo up
if [ "$(word va.net)" = 1 ]; then
	ip addr add 10.0.2.15/24 dev eth0
	ip link set eth0 up
	ip route add default via 10.0.2.2
fi
relay=$(word va.relay)
if [ -n "$relay" ]; then
	own=
	if [ "$(word va.relay-own)" = 1 ]; then own=--also-quote; fi
	/usr/local/bin/relay agent $own --to "$relay" > /run/agent.log 2>&1 &
elif [ "$(word va.agent)" != off ]; then
	/usr/sbin/virt-attest-guest -v > /run/agent.log 2>&1 &
fi
stty -echo < /dev/console
hostname guest
echo "guest is up" > /dev/console
# shellcheck disable=SC2002 # a shell whose input is a terminal would prompt
while :; do cat /dev/console | sh > /dev/console 2>&1; done
