// Command demo shows virt-attest at work on real hosts, VMs and TPMs: `make demo`.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"virt-attest/test/lab"
	"virt-attest/test/scenario"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := demo(ctx)
	stop()
	switch {
	case errors.Is(err, errCannot):
		fmt.Fprintf(os.Stderr, "demo: %v\n", err)
		os.Exit(2)
	case err != nil:
		fmt.Fprintf(os.Stderr, "\ndemo: FAILED: %v\n", err)
		os.Exit(1)
	}
}

// errCannot says that this machine cannot run the demonstration.
var errCannot = errors.New("this machine cannot run the demonstration")

func demo(ctx context.Context) (err error) {
	if err := lab.Require(); err != nil {
		return fmt.Errorf("%w: %w", errCannot, err)
	}
	repo, err := os.Getwd()
	if err != nil {
		return err
	}
	start := time.Now()
	tell := scenario.Plain{W: os.Stdout}
	tell.Title("A good host, an attacker's host and a Verifier come up")
	log := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: brief}))
	w, err := scenario.New(ctx, scenario.Options{Name: "demo", Repo: repo, Tell: tell, Look: visit, Log: log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	for _, s := range scenario.Steps() {
		if err := s.Do(ctx, w); err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
	}
	fmt.Printf("\nAll steps went as they should, in %s.\n", time.Since(start).Round(time.Second))
	return nil
}

// brief leaves the time and the level out of progress lines.
func brief(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey || a.Key == slog.LevelKey {
		return slog.Attr{}
	}
	return a
}

func atTerminal() bool {
	_, err := unix.IoctlGetTermios(int(os.Stdin.Fd()), unix.TCGETS)
	return err == nil
}

// visit invites whoever sits at a terminal to the Verifier's page, and goes on by itself where nobody does.
func visit(ctx context.Context, address string) error {
	if !atTerminal() {
		fmt.Println("  (With a terminal the demonstration stops here, with the address of the page.)")
		return nil
	}
	fmt.Printf("\n  %s\n\n  Open it in a browser on this machine: it logs in once. Choose vm3, read why it is red, and accept the program\n"+
		"  into the reference values. Then press Enter here; what is left undone the command line does.\n", address)
	line := make(chan struct{})
	go func() {
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
		close(line)
	}()
	select {
	case <-line:
	case <-ctx.Done():
	}
	return ctx.Err()
}
