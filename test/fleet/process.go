package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"virt-attest/verifier/api"
)

// verifierd is a real virt-attest-verifierd under load.
type verifierd struct {
	cmd    *exec.Cmd
	socket string
	log    string
}

// start runs the program bin with its files in dir. storeLines is the [store] section of its configuration.
func start(ctx context.Context, bin, dir, storeLines string) (*verifierd, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	v := &verifierd{socket: filepath.Join(dir, "api.sock"), log: filepath.Join(dir, "log")}
	conf := filepath.Join(dir, "verifier.toml")
	text := fmt.Sprintf("[listen]\nunix = %q\nweb = \"\"\n[operators]\ngroup = \"\"\n[hosts]\nek_issuers = %q\n[store]\n%s\n", v.socket, filepath.Join(dir, "issuers"), storeLines)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return nil, err
	}
	log, err := os.Create(v.log)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	v.cmd = exec.CommandContext(ctx, bin, "-config", conf)
	v.cmd.Stdout, v.cmd.Stderr = log, log
	v.cmd.Cancel = func() error { return v.cmd.Process.Signal(syscall.SIGTERM) }
	v.cmd.WaitDelay = 10 * time.Second
	if err := v.cmd.Start(); err != nil {
		return nil, err
	}
	return v, v.ready(ctx)
}

func (v *verifierd) client() (*api.Client, error) {
	return api.NewClient("unix://"+v.socket, api.TLS{})
}

// ready waits until the Verifier answers.
func (v *verifierd) ready(ctx context.Context) error {
	c, err := v.client()
	if err != nil {
		return err
	}
	defer c.Close()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if _, err = c.Version(ctx); err == nil {
			return nil
		}
		if time.Now().After(end) || v.cmd.ProcessState != nil {
			return fmt.Errorf("the Verifier does not answer: %w; its log is %s", err, v.log)
		}
	}
}

func (v *verifierd) stop() {
	if v != nil && v.cmd.Process != nil {
		_ = v.cmd.Process.Signal(syscall.SIGTERM)
		_ = v.cmd.Wait()
	}
}

// limp stops the process for what is left of every slice after run, until ctx ends.
func (v *verifierd) limp(ctx context.Context, run time.Duration) {
	defer func() { _ = v.cmd.Process.Signal(syscall.SIGCONT) }()
	for ctx.Err() == nil {
		_ = v.cmd.Process.Signal(syscall.SIGCONT)
		time.Sleep(run)
		_ = v.cmd.Process.Signal(syscall.SIGSTOP)
		time.Sleep(slice - run)
	}
}

// usage is what a process has used.
type usage struct {
	cpu time.Duration
	rss int64 // bytes, now
}

const ticksPerSecond = 100 // USER_HZ, which Linux fixes

// usageOf reads /proc. A process that is gone has used nothing.
func usageOf(pid int) usage {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return usage{}
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	ticks := func(i int) int64 { n, _ := strconv.ParseInt(f[i], 10, 64); return n }
	return usage{cpu: time.Duration(ticks(11)+ticks(12)) * time.Second / ticksPerSecond, rss: ticks(21) * int64(os.Getpagesize())}
}

// treeOf adds up a process and everything below it, PostgreSQL's servers for one.
func treeOf(pid int) usage {
	sum := usageOf(pid)
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return sum
	}
	for _, c := range strings.Fields(string(b)) {
		if n, err := strconv.Atoi(c); err == nil {
			u := treeOf(n)
			sum.cpu, sum.rss = sum.cpu+u.cpu, sum.rss+u.rss
		}
	}
	return sum
}
