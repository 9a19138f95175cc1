package custody

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/coreos/go-systemd/v22/daemon"

	"virt-attest/attest"
)

const usage = `usage: virt-attest-custody deliver UUID

Puts the keys of a VM's vTPM where its swtpm finds them; virt-attest-custody@UUID.service runs it.
virt-attest custody is the command for people.
`

const (
	swtpmUser = "virt-attest"
	// unlockTime is for the pTPM, and below the time that the libvirt hook waits, so that the better error wins.
	unlockTime = 5 * time.Second
)

// Command is the program virt-attest-custody. It gives the exit status: 0, 1 for a failure, 2 for a wrong use.
func Command(ctx context.Context, args []string, stderr io.Writer) int {
	if len(args) != 2 || args[0] != "deliver" {
		_, _ = fmt.Fprint(stderr, usage)
		return 2
	}
	err := deliver(ctx, New(), args[1])
	if err == nil {
		return 0
	}
	text := oneLine(strings.TrimPrefix(err.Error(), "custody: "))
	_, _ = fmt.Fprintf(stderr, "virt-attest-custody: %s\n", text)
	_, _ = daemon.SdNotify(false, "STATUS="+text) // the hook shows it to whoever started the VM
	return 1
}

// oneLine is a text for a terminal and a status, with its end: how to go on stands there.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == unicode.ReplacementChar {
			return ' '
		}
		return r
	}, s)
	return s[:min(len(s), maxStatus)]
}

func deliver(ctx context.Context, c *Custody, arg string) error {
	ctx, cancel := context.WithTimeout(ctx, unlockTime)
	defer cancel()
	id, err := attest.ParseUUID(arg)
	if err != nil {
		return err
	}
	u, err := user.Lookup(swtpmUser)
	if err != nil {
		return err
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	_, err = c.Deliver(ctx, id, uid, gid)
	if errors.Is(err, ErrNone) { // the unit runs for VMs in custody, and where all new ones are
		if _, statErr := os.Lstat(c.vmFile(id)); errors.Is(statErr, fs.ErrNotExist) {
			return nil
		}
		return fmt.Errorf("the VM's vTPM is in custody, and %s is gone; bring it back from a backup", c.hostFile())
	}
	return err
}
