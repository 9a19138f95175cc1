package lab

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// echoTPM answers every command with its own bytes and fails the test if two overlap.
func echoTPM(t *testing.T, path string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		for {
			cmd, err := readTPMFrame(c)
			if err != nil {
				return
			}
			time.Sleep(time.Millisecond)
			_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
			if n, _ := c.Read(make([]byte, 1)); n != 0 {
				t.Error("a second command came before the first was answered")
			}
			_ = c.SetReadDeadline(time.Time{})
			if _, err := c.Write(cmd); err != nil {
				return
			}
		}
	}()
}

func newMux(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	tpm, path := filepath.Join(dir, "tpm"), filepath.Join(dir, "mux")
	echoTPM(t, tpm)
	conn, err := net.Dial("unix", tpm)
	if err != nil {
		t.Fatal(err)
	}
	m, err := listenMux(path, conn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.close(); err != nil {
			t.Error(err)
		}
	})
	return path
}

func frame(size int, fill byte) []byte {
	f := bytes.Repeat([]byte{fill}, size)
	binary.BigEndian.PutUint32(f[2:], uint32(size))
	return f
}

func Test_users_of_a_TPM_get_the_answers_to_their_own_commands(t *testing.T) {
	path := newMux(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			c, err := net.Dial("unix", path)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			for n := range 10 {
				cmd := frame(10+100*n, byte(i))
				if _, err := c.Write(cmd); err != nil {
					t.Error(err)
				}
				if got, err := readTPMFrame(c); err != nil || !bytes.Equal(got, cmd) {
					t.Errorf("user %d: another's answer, %v", i, err)
				}
			}
		})
	}
	wg.Wait()
}

func Test_a_user_that_sends_half_a_command_keeps_nobody_from_the_TPM(t *testing.T) {
	path := newMux(t)
	stuck, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer stuck.Close()
	if _, err := stuck.Write(frame(100, 1)[:50]); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write(frame(20, 2)); err != nil {
		t.Fatal(err)
	}
	if _, err := readTPMFrame(c); err != nil {
		t.Error(err)
	}
}

func Test_a_user_whose_command_has_an_impossible_size_is_shown_out(t *testing.T) {
	path := newMux(t)
	for _, size := range []uint32{0, 9, maxTPMFrame + 1, 1<<32 - 1} {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		head := make([]byte, 10)
		binary.BigEndian.PutUint32(head[2:], size)
		if _, err := c.Write(head); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(c); err != nil {
			t.Errorf("size %d: %v", size, err)
		}
		c.Close()
	}
}
