package guestagent

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/internal/agentproto"
	"virt-attest/internal/channel"
	"virt-attest/internal/directproto"
)

// certs makes a CA and a certificate for localhost of it, usable on both sides.
func certs(t *testing.T) directproto.Files {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true,
		NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &key.PublicKey, key)
	check(t, err)
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, key)
	check(t, err)
	k, err := x509.MarshalPKCS8PrivateKey(key)
	check(t, err)
	dir := t.TempDir()
	f := directproto.Files{CA: filepath.Join(dir, "ca"), Cert: filepath.Join(dir, "cert"), Key: filepath.Join(dir, "key")}
	for path, b := range map[string]*pem.Block{f.CA: {Type: "CERTIFICATE", Bytes: caDER}, f.Cert: {Type: "CERTIFICATE", Bytes: der}, f.Key: {Type: "PRIVATE KEY", Bytes: k}} {
		check(t, os.WriteFile(path, pem.EncodeToMemory(b), 0o600))
	}
	return f
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// serving runs a handler behind the network's listener.
func serving(t *testing.T, f directproto.Files, h channel.Handler) (address string) {
	t.Helper()
	conf, err := f.Config()
	check(t, err)
	ln, err := directproto.Listen(t.Context(), "tcp://127.0.0.1:0")
	check(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- serveNetwork(ctx, ln, conf, h, slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return "tcp://" + ln.Addr().String()
}

// tells answers everything with nothing much, as an agent without a TPM would.
func tells(seen *sync.Map) channel.Handler {
	return func(_ context.Context, op uint8, _ []byte) ([]byte, error) {
		seen.Store(op, true)
		switch op {
		case agentproto.OpIMA:
			return channel.Encode(agentproto.LogChunk{BootID: "b", TemplateHash: attest.SHA1})
		case agentproto.OpBootLog:
			return nil, unavailable("no log", os.ErrNotExist)
		case agentproto.OpQuote:
			return channel.Encode(agentproto.Quoted{Parameters: []byte{1}})
		case agentproto.OpIdentity:
			return channel.Encode(agentproto.Identity{AK: []byte("ak")})
		}
		return channel.Encode(agentproto.Hello{Version: "1", BootID: "b"})
	}
}

func query(t *testing.T, address string, f directproto.Files) (*directproto.Answer, error) {
	t.Helper()
	conf, err := f.Config()
	check(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	return directproto.Ask(ctx, address, "localhost", conf, attest.Nonce{1}, []attest.PCRSelection{{Alg: attest.SHA256, PCRs: []uint8{0}}})
}

func TestNetwork_answers_who_has_a_certificate_and_nobody_else(t *testing.T) {
	f, seen := certs(t), &sync.Map{}
	address := serving(t, f, only(new(sync.Mutex), tells(seen)))
	a, err := query(t, address, f)
	if err != nil || !bytes.Equal(a.AK, []byte("ak")) || a.IMA.BootID != "b" || a.Agent.Version != "1" {
		t.Fatalf("%+v, %v", a, err)
	}
	seen.Clear()
	if _, err := query(t, address, certs(t)); err == nil { // of another CA
		t.Error("a stranger was answered")
	}
	seen.Range(func(op, _ any) bool { t.Errorf("a stranger's request %v reached the agent", op); return true })
}

// The host's own requests, such as to open a credential, are not the network's.
func TestNetwork_takes_only_requests_that_tell_something(t *testing.T) {
	seen := &sync.Map{}
	h := only(new(sync.Mutex), tells(seen))
	for op := range 256 {
		_, err := h(t.Context(), uint8(op), nil)
		_, reached := seen.Load(uint8(op))
		if reached != overNetwork(uint8(op)) || !reached && (err == nil || !strings.Contains(err.Error(), "network")) {
			t.Errorf("request %d: %v", op, err)
		}
	}
	if _, ok := seen.Load(agentproto.OpActivate); ok {
		t.Error("a credential may be opened from the network")
	}
}

// Who connects and says nothing, or half of a handshake, keeps nobody else out for long, and costs a bounded number of connections.
func TestNetwork_bounds_peers_that_say_nothing(t *testing.T) {
	f := certs(t)
	address := serving(t, f, only(new(sync.Mutex), tells(&sync.Map{})))
	var silent []net.Conn
	for range 3 * maxPeers {
		c, err := net.Dial("tcp", strings.TrimPrefix(address, "tcp://"))
		check(t, err)
		_, _ = c.Write([]byte{22, 3, 1}) // the beginning of a ClientHello
		silent = append(silent, c)
	}
	closed := 0
	for _, c := range silent[maxPeers:] {
		_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err != nil && !os.IsTimeout(err) {
			closed++
		}
	}
	if closed < maxPeers {
		t.Errorf("only %d of %d connections too many were refused", closed, 2*maxPeers)
	}
	for _, c := range silent {
		_ = c.Close()
	}
	time.Sleep(200 * time.Millisecond)
	if _, err := query(t, address, f); err != nil {
		t.Errorf("and then: %v", err)
	}
}

// A guest that wants to harm who asks it.
func TestAsk_is_not_held_or_filled_by_a_hostile_guest(t *testing.T) {
	f, seen := certs(t), &sync.Map{}
	chunk := bytes.Repeat([]byte{1}, agentproto.MaxChunk)
	good := tells(seen)
	for name, h := range map[string]channel.Handler{
		"it never ends its log": func(ctx context.Context, op uint8, p []byte) ([]byte, error) {
			var q agentproto.Log
			if op != agentproto.OpIMA {
				return good(ctx, op, p)
			}
			_ = channel.Decode(p, &q)
			return channel.Encode(agentproto.LogChunk{BootID: "b", From: q.From, Count: 1, Data: chunk, More: true, TemplateHash: attest.SHA1})
		},
		"its log jumps": func(ctx context.Context, op uint8, p []byte) ([]byte, error) {
			if op != agentproto.OpIMA {
				return good(ctx, op, p)
			}
			return channel.Encode(agentproto.LogChunk{BootID: "b", From: 7, Count: 1, Data: chunk, TemplateHash: attest.SHA1})
		},
		"its quote is huge": func(ctx context.Context, op uint8, p []byte) ([]byte, error) {
			if op != agentproto.OpQuote {
				return good(ctx, op, p)
			}
			return channel.Encode(agentproto.Quoted{Parameters: chunk})
		},
		"it does not answer": func(ctx context.Context, _ uint8, _ []byte) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() },
	} {
		began := time.Now()
		if a, err := query(t, serving(t, f, h), f); err == nil {
			t.Errorf("%s: %d bytes of a log", name, len(a.IMA.Data))
		}
		if took := time.Since(began); took > 8*time.Second {
			t.Errorf("%s: it took %v", name, took)
		}
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(io.Discard, c) }() // a TLS handshake that does not come
		}
	}()
	began := time.Now()
	if _, err := query(t, "tcp://"+ln.Addr().String(), f); err == nil || time.Since(began) > 8*time.Second {
		t.Errorf("half-open TLS: %v after %v", err, time.Since(began))
	}
}

func TestListen_refuses_what_is_no_address(t *testing.T) {
	for _, a := range []string{"", "127.0.0.1:1", "tcp://127.0.0.1", "udp://127.0.0.1:1", "tcp://u@h:1", "tcp://h:1/x", "vsock://:70000000000", "vsock://3"} {
		if ln, err := directproto.Listen(t.Context(), a); err == nil {
			t.Errorf("%q: listens at %v", a, ln.Addr())
		}
	}
}
