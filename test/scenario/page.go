package scenario

import (
	"context"
	"encoding/json"
	"fmt"

	"virt-attest/test/guest"
	"virt-attest/verifier/appraise"
)

// Look is told where the Verifier's page is, by an address that logs in once, while vm3 is UNTRUSTED because of
// guest.Unlisted. What it leaves undone is done by the command line.
type Look func(ctx context.Context, address string) error

const pagePort = "127.0.0.1:16516" // [listen] web, by default

// onThePage runs a program in a VM that belongs there and is not listed yet, and accepts it.
func (w *World) onThePage(ctx context.Context) error {
	w.tell.Explain("A new program that is meant to be there runs in vm3. Until somebody says so it is unlisted.")
	if _, err := w.InGuest(ctx, w.Good, VM3, guest.Unlisted); err != nil {
		return err
	}
	r, err := w.Attest(ctx, 1, VM3.Name)
	if err != nil {
		return err
	}
	if _, err := Demand(r, VM3, appraise.Untrusted, appraise.CodeIMAUnlisted); err != nil {
		return err
	}
	if _, err := w.Run(ctx, w.Verifier, 1, "virt-attest", "why", VM3.Name); err != nil {
		return err
	}
	if err := w.show(ctx); err != nil {
		return err
	}
	trusted, err := w.trusts(ctx, VM3)
	if err != nil {
		return err
	}
	if !trusted {
		w.tell.Explain("Whoever knows the program accepts it: a new version of the reference values, its difference, what it would change, and its activation.")
		if _, err := w.Run(ctx, w.Verifier, 0, "virt-attest", "rim", "accept", "web", VM3.Name, "--all", "--note", "the new backup program", "--yes"); err != nil {
			return err
		}
	}
	w.tell.Explain("An orchestrator asks in one call, and only now puts its work there.")
	if _, err := w.Run(ctx, w.Verifier, 0, "virt-attest", "gate", VM3.Name, "--max-age", "30s", "--timeout", "30s"); err != nil {
		return err
	}
	_, err = w.Run(ctx, w.Verifier, 0, "virt-attest", "history", VM3.Name, "--last", "4")
	return err
}

// show makes the page reachable from this machine's loopback and tells where it is.
func (w *World) show(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	at, err := w.Verifier.Forward(ctx, "127.0.0.1:0", pagePort)
	if err != nil {
		return err
	}
	out, err := w.Quiet(ctx, w.Verifier, "virt-attest", "--json", "login-link", "--role", "admin", "--web", "http://"+at.String())
	if err != nil {
		return err
	}
	var link struct {
		URL string `json:"url"`
	}
	if err := json.Unmarshal([]byte(out), &link); err != nil || link.URL == "" {
		return fmt.Errorf("login-link printed %q: %w", out, err)
	}
	if w.look == nil {
		return nil
	}
	w.tell.Explain("The page says it too, with what to do.")
	return w.look(ctx, link.URL)
}

// trusts asks the Verifier for a VM's state.
func (w *World) trusts(ctx context.Context, v VM) (bool, error) {
	out, errs, code := w.Verifier.Run(ctx, "virt-attest", "state", v.Name)
	if code > 5 || code < 0 {
		return false, fmt.Errorf("virt-attest state %s: exit status %d: %s%s", v.Name, code, out, errs)
	}
	return code == 0, nil
}
