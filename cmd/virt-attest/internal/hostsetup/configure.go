package hostsetup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"virt-attest/cmd/virt-attest/internal/hostcheck"
	"virt-attest/verifier/host/config"
)

const (
	settingsFile = "etc/virt-attest/host.toml.d/50-host-setup.toml"
	tokenFile    = "etc/virt-attest/enrol-token" //nolint:gosec // names a file

	maxPEM = 1 << 20 // bytes of a certificate's file
)

// settings writes what the options say into a drop-in of the configuration.
func (s *Setup) settings(ctx context.Context) {
	if f := s.Host.Check(ctx, "the configuration"); f.Result != hostcheck.Pass {
		s.say(f)
		return
	}
	const name = "the configuration"
	if s.Verifier == "" && s.Token == "" {
		s.tell(There, name, "as it is; --verifier URL names a Verifier")
		return
	}
	text := "[verifier]\n"
	if s.Verifier != "" {
		text += "url = " + strconv.Quote(s.Verifier) + "\n"
	}
	if s.Token != "" {
		text += "enrol_token = \"/" + tokenFile + "\"\n"
	}
	if _, err := config.Parse([]byte(text)); err != nil {
		s.tell(Failed, name, "%v", err)
		return
	}
	if b, err := os.ReadFile(s.path(settingsFile)); err == nil && string(b) == Mark+text && s.Token == "" {
		s.tell(There, name, "/%s", settingsFile)
		return
	}
	s.do(name, "/"+settingsFile, func() error {
		if s.Token != "" {
			if err := replace(s.path(tokenFile), []byte(s.Token+"\n"), 0o600); err != nil {
				return err
			}
		}
		if err := s.write(settingsFile, text); err != nil {
			return err
		}
		s.restart = true // at once, so that what is told of the enrolment is of this Verifier
		return s.overruled()
	})
}

// overruled finds another drop-in or a variable that has the last word about the Verifier.
func (s *Setup) overruled() error {
	c, err := s.Host.Config()
	if err != nil {
		return err
	}
	if s.Verifier != "" && c.Verifier.URL != s.Verifier {
		return fmt.Errorf("verifier.url is %s all the same; virt-attest config show host --origin tells why", c.Verifier.URL)
	}
	return nil
}

// certificates puts files where the configuration has them. One that is there and differs is somebody's, and stays.
func (s *Setup) certificates(ctx context.Context) {
	c, err := s.Host.Config()
	if err != nil {
		return // settings has told
	}
	const name = "the certificates"
	for _, f := range []struct {
		from, to string
		mode     os.FileMode
	}{{s.CA, c.Verifier.CA, 0o644}, {s.Cert, c.Verifier.Cert, 0o644}, {s.Key, c.Verifier.Key, 0o600}} {
		if f.from == "" {
			continue
		}
		b, err := readFile(f.from)
		if err != nil {
			s.tell(Failed, name, "%v", err)
			return
		}
		if old, err := readFile(s.path(f.to)); err == nil && bytes.Equal(old, b) {
			s.tell(There, name, "%s", f.to)
			continue
		} else if !errors.Is(err, fs.ErrNotExist) {
			s.tell(ByHand, name, "%s is another one; remove it first", f.to)
			return
		}
		s.do(name, f.to, func() error { return s.place(f.to, b, f.mode) })
	}
	s.Host.Check(ctx, "the configuration")
	s.say(s.Host.Check(ctx, name))
}

// place writes a file into a directory that only root can look into where the file is secret.
func (s *Setup) place(name string, b []byte, mode os.FileMode) error {
	dir := filepath.Dir(s.path(name))
	perm := os.FileMode(0o755)
	if mode&0o077 == 0 {
		perm = 0o700
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil { //nolint:gosec // /etc/pki, which everybody reads
		return err
	}
	if err := os.Mkdir(dir, perm); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return replace(s.path(name), b, mode)
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxPEM+1))
	if err == nil && len(b) > maxPEM {
		err = fmt.Errorf("%s: over %d bytes", path, maxPEM)
	}
	return b, err
}

// device lets hostd open the TPM that its configuration names: its unit lets it open /dev/tpmrm0 only.
func (s *Setup) device(ctx context.Context) {
	c, err := s.Host.Config()
	if err != nil || c.TPM.Socket != "" || c.TPM.Device == "/dev/tpmrm0" || strings.ContainsAny(c.TPM.Device, " \n%") {
		return
	}
	text := "[Service]\nDeviceAllow=" + c.TPM.Device + " rw\n"
	if b, err := os.ReadFile(s.path(deviceFile)); err == nil && string(b) == Mark+text {
		s.tell(There, "access to the TPM", "%s", c.TPM.Device)
		return
	}
	s.do("access to the TPM", "hostd's unit lets it open no other device than "+c.TPM.Device+" with this", func() error {
		s.restart = true
		if err := s.write(deviceFile, text); err != nil {
			return err
		}
		return s.run(ctx, "systemctl", "daemon-reload")
	})
}

// enrolment tells whether the Verifier knows this host, and what an operator has to do where it does not.
func (s *Setup) enrolment(ctx context.Context) {
	if s.DryRun {
		s.say(s.Host.Check(ctx, "the enrolment"))
		return
	}
	f := s.Host.Check(ctx, "the enrolment")
	for end := time.Now().Add(settle); f.Result == hostcheck.Fail && time.Now().Before(end) && ctx.Err() == nil; f = s.Host.Check(ctx, "the enrolment") {
		time.Sleep(settle / 20)
	}
	said := s.Host.Check(ctx, "the physical TPM").Text
	ek := said[strings.LastIndexByte(said, ' ')+1:]
	c, err := s.Host.Config()
	if f.Result == hostcheck.Fail && strings.Contains(f.Text, "approval") && err == nil {
		s.tell(ByHand, f.Check, "%s. Where the Verifier is operated, compare the key and approve it:\n    virt-attest host approve %s --ek-sha256 %s", f.Text, c.Name, ek)
		return
	}
	s.say(f)
}
