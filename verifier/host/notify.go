package host

import (
	"context"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"virt-attest/attest"
)

// notifier tells systemd how hostd does (sd_notify(3)). Without systemd it does nothing.
type notifier struct{ log *slog.Logger }

func newNotifier(log *slog.Logger) *notifier { return &notifier{log} }

func (n *notifier) send(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		n.log.Warn("systemd cannot be told", "state", state, "error", err)
	}
}

func (n *notifier) ready()             { n.send(daemon.SdNotifyReady) }
func (n *notifier) stopping()          { n.send(daemon.SdNotifyStopping) }
func (n *notifier) status(text string) { n.send("STATUS=" + attest.Clean(text)) }

// watchdog pats systemd's watchdog as long as hostd is healthy.
func (n *notifier) watchdog(ctx context.Context, healthy func() bool) error {
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil || every == 0 {
		return err
	}
	tick := time.NewTicker(every / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if healthy() {
				n.send(daemon.SdNotifyWatchdog)
			}
		}
	}
}
