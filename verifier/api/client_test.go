package api

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/internal/channel"
)

// serve answers on a unix socket with h and returns a client of it.
func serve(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "api.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: time.Second}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	c, err := NewClient("unix://"+path, TLS{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestNewClient_refuses_addresses_that_it_could_not_speak_to_safely(t *testing.T) {
	for _, a := range []string{"", "http://verifier", "https://", "unix://relative/path", "verifier:8443", "https://user:secret@verifier", "https://verifier/path"} {
		if _, err := NewClient(a, TLS{}); err == nil {
			t.Errorf("%q was accepted", a)
		}
	}
}

func TestClient_tells_a_problem_from_a_broken_answer(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/api/v1/hosts":
			w.Header().Set("Content-Type", TypeProblem)
			w.WriteHeader(http.StatusForbidden)
			_ = json.NewEncoder(w).Encode(NewProblem(http.StatusForbidden, "no"))
		case "/api/v1/vms":
			http.Error(w, "<html>a proxy's page</html>", http.StatusBadGateway)
		default:
			_, _ = w.Write([]byte("{"))
		}
	})
	if _, err := c.Hosts(t.Context()); !IsStatus(err, http.StatusForbidden) || !strings.Contains(err.Error(), "no") {
		t.Errorf("problem: %v", err)
	}
	if _, err := c.VMs(t.Context()); !IsStatus(err, http.StatusBadGateway) {
		t.Errorf("page: %v", err)
	}
	if _, err := c.Version(t.Context()); err == nil || IsStatus(err, 200) {
		t.Errorf("broken JSON: %v", err)
	}
}

func TestClient_stops_at_an_answer_over_the_limit(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		b := make([]byte, 64<<10)
		for range (MaxHello >> 16) + 2 {
			_, _ = w.Write(b)
		}
	})
	if _, err := c.Hello(t.Context(), HostHello{}); err == nil || !strings.Contains(err.Error(), "over") {
		t.Errorf("got %v", err)
	}
}

func TestClient_Challenges_refuses_what_is_no_challenge(t *testing.T) {
	list := []attest.Challenge{{Nonce: attest.Nonce{1}, Scheme: 99}}
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("host") != "h1" || r.URL.Query().Get("wait") != "2.000" {
			t.Errorf("query %v", r.URL.Query())
		}
		b, err := channel.Encode(Poll{Challenges: list})
		if err != nil {
			t.Error(err)
		}
		_, _ = w.Write(b)
	})
	if _, err := c.Poll(t.Context(), PollRequest{Host: "h1", Wait: 2 * time.Second}); err == nil {
		t.Error("a challenge with an unknown scheme was accepted")
	}
	list[0] = attest.Challenge{Nonce: attest.Nonce{1}, Scheme: attest.SchemeSEPA, Host: "h1"}
	if got, err := c.Poll(t.Context(), PollRequest{Host: "h1", Wait: 2 * time.Second}); err != nil || len(got.Challenges) != 1 {
		t.Errorf("%v %v", got, err)
	}
}

func TestClient_never_follows_a_redirect(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://elsewhere/", http.StatusFound)
	})
	if _, err := c.Hosts(t.Context()); err == nil || !strings.Contains(err.Error(), "redirect") {
		t.Errorf("got %v", err)
	}
}

func TestClient_ends_with_its_callers_context(t *testing.T) {
	hold := make(chan struct{})
	c := serve(t, func(http.ResponseWriter, *http.Request) { <-hold })
	t.Cleanup(func() { close(hold) })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := c.Hosts(ctx); err == nil || time.Since(start) > 5*time.Second {
		t.Errorf("%v after %v", err, time.Since(start))
	}
}
