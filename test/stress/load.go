package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"

	"virt-attest/internal/channel"
	"virt-attest/internal/sidecarproto"
	"virt-attest/test/guest"
)

// kill ends the sidecar by SIGKILL again and again.
func (v *vm) kill(ctx context.Context, r *rand.Rand) {
	for ctx.Err() == nil {
		pause(ctx, time.Duration(r.Int64N(int64(6*time.Second))))
		for range 1 + r.IntN(4) {
			_, _, code := v.host.Run(ctx, "systemctl", "kill", "-s", "KILL", v.unit("sidecar"))
			if code == 0 {
				v.note("kill -9 of the sidecar")
				v.mu.Lock()
				v.shot = time.Now()
				v.mu.Unlock()
				v.tally.count("kill -9", 0)
			}
			pause(ctx, time.Duration(r.Int64N(int64(150*time.Millisecond))))
		}
	}
}

func (v *vm) unit(what string) string { return "virt-attest-" + what + "@" + v.opts.UUID + ".service" }

// patience with the sidecar: it waits 10 s for its turn, and reads.
const patience = 25 * time.Second

// read asks the sidecar as hostd does, without a pause.
func (v *vm) read(ctx context.Context, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 2))
	for ctx.Err() == nil {
		path := fmt.Sprintf("/proc/%d/root/run/virt-attest/%s/%s", v.host.PID(), v.opts.UUID, sidecarproto.SidecarSocket)
		conn, err := net.Dial("unix", path)
		if err != nil {
			pause(ctx, 20*time.Millisecond)
			continue
		}
		v.ask(ctx, conn, r)
	}
}

// ask reads over one connection until it fails.
func (v *vm) ask(ctx context.Context, conn net.Conn, r *rand.Rand) {
	c := channel.NewClient(conn, sidecarproto.MaxPayload, nil)
	ended := make(chan struct{})
	go func() { defer close(ended); _ = c.Run() }()
	defer func() { _ = conn.Close(); <-ended }()
	names := map[uint8]string{sidecarproto.OpPCRs: "own read of PCRs", sidecarproto.OpEK: "own read of the EK", sidecarproto.OpInfo: "info"}
	for ctx.Err() == nil {
		op := []uint8{sidecarproto.OpPCRs, sidecarproto.OpPCRs, sidecarproto.OpEK, sidecarproto.OpInfo}[r.IntN(4)]
		began := time.Now()
		bounded, cancel := context.WithTimeout(ctx, patience)
		_, err := c.Do(bounded, op, nil)
		late := bounded.Err() != nil && ctx.Err() == nil
		cancel()
		took := time.Since(began)
		name := names[op]
		if remote := (*channel.RemoteError)(nil); errors.As(err, &remote) {
			name += ": " + string(remote.Code)
			if remote.Code != channel.CodeUnavailable {
				v.note(name + " " + remote.Message)
			}
			err = nil
		} else if late {
			v.failure(fmt.Sprintf("%s: no answer within %v", name, patience))
		}
		if err != nil {
			return
		}
		v.tally.count(name, took)
		pause(ctx, time.Duration(r.Int64N(int64(30*time.Millisecond))))
	}
}

// use has the guest use its TPM whenever it has booted, and looks for errors that it sees.
func (v *vm) use(ctx context.Context, r *rand.Rand) {
	for ctx.Err() == nil {
		dial, cancel := context.WithTimeout(ctx, time.Second)
		con, err := guest.Dial(dial, fmt.Sprintf("/proc/%d/root%s", v.host.PID(), v.opts.Console))
		cancel()
		if err == nil {
			v.drive(ctx, con, r)
			_ = con.Close()
		}
		pause(ctx, 200*time.Millisecond)
	}
}

// drive gives commands to the guest until the console ends or is silent for long, as a VM that was reset is.
func (v *vm) drive(ctx context.Context, con *guest.Console, r *rand.Rand) {
	for ctx.Err() == nil {
		round, cancel := context.WithTimeout(ctx, 20*time.Second)
		out, err := con.Run(round, guest.ToolDir+"/tpm flood 2; dmesg | grep -iE 'tpm.*(err|fail|timed)' || :")
		cancel()
		v.look(con.Transcript() + out)
		if exit := (*guest.ExitError)(nil); errors.As(err, &exit) {
			out, err = exit.Output, nil
			v.look(out)
		}
		if err != nil {
			return
		}
		if strings.Contains(out, "quotes") {
			v.tally.count("flood of quotes in the guest", 0)
		}
		if r.IntN(4) == 0 {
			v.end(ctx, con, []string{"b", "o"}[r.IntN(2)])
			return
		}
	}
}

// end has the guest's kernel reboot (b) or power off (o) at once.
func (v *vm) end(ctx context.Context, con *guest.Console, how string) {
	v.note("the guest ends itself: sysrq " + how)
	v.tally.count("the guest ends itself: sysrq "+how, 0)
	bounded, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, _ = con.Run(bounded, "echo "+how+" > /proc/sysrq-trigger") // no answer comes
}

// look finds TPM errors in what a guest said. A guest that was reset in the middle of a line says nonsense, not these.
func (v *vm) look(text string) {
	v.mu.Lock()
	v.seen = text
	v.mu.Unlock()
	for line := range strings.Lines(text) {
		l := strings.ToLower(line)
		bad := strings.Contains(l, "tpm") && (strings.Contains(l, "error") || strings.Contains(l, "fail") || strings.Contains(l, "timed out"))
		switch {
		case !bad || strings.Contains(l, "grep"):
		case qemusOwn(l):
			v.tally.count("response lost by QEMU in a save", 0)
		default:
			v.failure("the guest says: " + strings.TrimSpace(line))
			return
		}
	}
}

var number = regexp.MustCompile(`(?:error ?\(|result: |error )(0x[0-9a-f]+|\d+)`)

// qemusOwn tells an error that is no response at all but the guest's own command, read back: a command
// code stands where the response code should be. QEMU's tpm-crb saves its buffer with the RAM and waits for the command
// that is under way after that, so whoever saves a VM in the middle of a command loses the response
// (with every kind of vTPM; seen with QEMU 7.2).
func qemusOwn(line string) bool {
	m := number.FindStringSubmatch(line)
	if m == nil {
		return false
	}
	n, err := strconv.ParseInt(m[1], 0, 32)
	return err == nil && n >= firstCode && n <= lastCode
}

// The codes of TPM commands.
const (
	firstCode = 0x11f
	lastCode  = 0x197
)
