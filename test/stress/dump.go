package main

import (
	"context"
	"strings"
	"time"
)

// failure prints what everybody does at this moment.
func (v *vm) failure(what string) {
	v.tally.fail(v.opts.Name + ": " + what)
	v.mu.Lock()
	did, seen := strings.Join(v.did, "\n"), v.seen
	v.mu.Unlock()
	if len(seen) > 4000 {
		seen = seen[len(seen)-4000:]
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, errs, _ := v.host.Run(ctx, "sh", "-c", dumpScript, "sh", v.opts.UUID, v.opts.Name)
	v.tally.say("--- done to it\n%s\n--- console\n%s\n%s%s", did, seen, out, errs)
}

// dumpScript shows processes from the outside first and then has the sidecar print its goroutines.
const dumpScript = `
qemu=$(pgrep -f "guest=$2,") side=$(systemctl show -P MainPID "virt-attest-sidecar@$1") swtpm=$(systemctl show -P MainPID "virt-attest-swtpm@$1")
for p in $qemu $side $swtpm; do
	[ "$p" != 0 ] && [ -d "/proc/$p" ] || continue
	echo "--- process $p: $(tr '\0' ' ' < /proc/$p/cmdline | cut -c1-100)"
	for t in /proc/$p/task/*; do echo "$(cat $t/comm) $(sed -n 's/^State:[ \t]*//p' $t/status) in $(cat $t/wchan 2>/dev/null), system call $(cut -d' ' -f1-6 $t/syscall 2>/dev/null)"; done
	ls -l /proc/$p/fd | grep -E 'socket|eventfd' | sed 's/.* \([0-9]* ->\)/\1/'
done
echo "--- sockets"; ss -xp | grep -E "virt-attest|swtpm|$1" 
echo "--- units"; systemctl --no-pager -n 0 status "virt-attest-sidecar@$1" "virt-attest-swtpm@$1"; systemctl --no-pager list-jobs
[ "$side" = 0 ] || kill -QUIT "$side"; sleep 1
echo "--- journal"; journalctl --no-pager -n 250 -o short-monotonic -u "virt-attest-*@$1.service" -u virt-attest-hostd
echo "--- QEMU's log"; tail -n 20 "/var/log/libvirt/qemu/$2.log"
`
