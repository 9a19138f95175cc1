package guestagent

import (
	"context"
	"io"
	"strconv"
	"strings"
	"time"

	"virt-attest/internal/agentproto"
	"virt-attest/internal/channel"
)

// watchGrowth tells the host when the kernel's list has entries that no host was given yet, until ctx ends. The kernel has no
// event for that, and the file that tells the number costs a read of some bytes. A kernel without the file is not watched.
func (a *Agent) watchGrowth(ctx context.Context, port io.Writer) {
	tick := time.NewTicker(growEvery)
	defer tick.Stop()
	for told := uint64(0); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		n, err := a.count()
		if err != nil {
			return
		}
		if n <= max(told, a.shipped.Load()) {
			continue
		}
		payload, err := channel.Encode(agentproto.Grown{Count: n})
		if err != nil {
			return
		}
		// A whole frame is one write, which the file keeps apart from that of an answer.
		if err := channel.Write(port, channel.Frame{Kind: channel.Event, Op: agentproto.OpGrown, Payload: payload}, agentproto.MaxPayload); err == nil {
			told = n
		}
	}
}

// count is how many entries the list has.
func (a *Agent) count() (uint64, error) {
	b, err := readFile(a.files.Count, maxCount)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
}
