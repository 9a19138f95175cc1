package agentport

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"virt-attest/internal/agentproto"
	"virt-attest/internal/channel"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve runs a port on a socket until the test ends.
func serve(t *testing.T, opts ...Option) (*Port, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent.sock")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	p := New(slog.New(slog.DiscardHandler), opts...)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return p, path
}

// dial connects as QEMU does.
func dial(t *testing.T, path string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// agent answers on conn: op 9 never, op 8 with its own error, everything else with its payload.
func agent(t *testing.T, conn net.Conn) {
	done := make(chan struct{})
	t.Cleanup(func() { conn.Close(); <-done })
	go func() {
		defer close(done)
		r := channel.NewReader(conn, agentproto.MaxPayload)
		for {
			f, err := r.Next()
			if err != nil {
				return
			}
			switch a := (channel.Frame{Kind: channel.Response, Op: f.Op, ID: f.ID, Payload: f.Payload}); f.Op {
			case 9:
			case 8:
				a.Kind = channel.Error
				a.Payload, _ = channel.Encode(channel.RemoteError{Code: channel.CodeUnavailable, Message: "no TPM"})
				fallthrough
			default:
				if channel.Write(conn, a, agentproto.MaxPayload) != nil {
					return
				}
			}
		}
	}()
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("never happened: %s", what)
}

func code(err error) channel.Code {
	var r *channel.RemoteError
	if errors.As(err, &r) {
		return r.Code
	}
	return ""
}

func TestRequest_waits_for_QEMU_to_connect_again_after_a_restart_and_not_for_ever(t *testing.T) {
	p, path := serve(t)
	var sent sync.WaitGroup
	defer sent.Wait()
	sent.Go(func() {
		if out, err := p.Request(within(t, 10*time.Second), 3, []byte("hi")); err != nil || string(out) != "hi" {
			t.Errorf("%q, %v", out, err)
		}
	})
	time.Sleep(300 * time.Millisecond) // QEMU's reconnect timer has not fired yet
	agent(t, dial(t, path))
	sent.Wait()

	p, _ = serve(t)
	p.born = time.Now().Add(-reconnectTime)
	start := time.Now()
	if _, err := p.Request(within(t, 10*time.Second), 3, nil); code(err) != channel.CodeUnavailable || time.Since(start) > time.Second {
		t.Errorf("after %v: %v", time.Since(start), err)
	}
}

func TestRequest_returns_the_agents_answer(t *testing.T) {
	p, path := serve(t)
	agent(t, dial(t, path))
	eventually(t, "the agent's answer to hello", p.Connected)
	for _, payload := range [][]byte{nil, []byte("nonce"), bytes.Repeat([]byte{1}, agentproto.MaxPayload)} {
		got, err := p.Request(within(t, 5*time.Second), agentproto.OpQuote, payload)
		if err != nil || !bytes.Equal(got, payload) {
			t.Fatalf("%d bytes of %d, %v", len(got), len(payload), err)
		}
	}
	if _, err := p.Request(t.Context(), agentproto.OpQuote, make([]byte, agentproto.MaxPayload+1)); code(err) != channel.CodeBadRequest {
		t.Errorf("oversized: %v", err)
	}
}

func TestRequest_tells_the_agents_own_error_from_an_absent_agent(t *testing.T) {
	p, path := serve(t)
	var own *AgentError
	if _, err := p.Request(t.Context(), 1, nil); code(err) != channel.CodeUnavailable || errors.As(err, &own) {
		t.Errorf("nobody connected: %v", err)
	}
	agent(t, dial(t, path))
	eventually(t, "hello", p.Connected)
	if _, err := p.Request(t.Context(), 8, nil); code(err) != channel.CodeUnavailable || !errors.As(err, &own) {
		t.Errorf("the agent's own error: %v", err)
	}
}

func TestRequest_to_a_guest_without_agent_fails_within_a_second_and_sends_nothing(t *testing.T) {
	p, path := serve(t)
	conn := dial(t, path)
	eventually(t, "connection", func() bool { return p.session() != nil })
	start := time.Now()
	for range 20 {
		if _, err := p.Request(within(t, time.Minute), 3, make([]byte, 1000)); code(err) != channel.CodeUnavailable {
			t.Fatal(err)
		}
	}
	if d := time.Since(start); d > 2*helloWait {
		t.Errorf("20 requests took %v", d)
	}
	_ = conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	b, _ := io.ReadAll(conn)
	if len(b) > 64 {
		t.Errorf("%d bytes pile up for an agent that is not there", len(b))
	}
}

func TestRequest_ends_when_a_stuck_agent_is_late_and_works_again_after_it_speaks(t *testing.T) {
	p, path := serve(t)
	conn := dial(t, path)
	agent(t, conn)
	eventually(t, "hello", p.Connected)
	start := time.Now()
	if _, err := p.Request(within(t, 100*time.Millisecond), 9, nil); code(err) != channel.CodeTimeout {
		t.Fatal(err)
	}
	if d := time.Since(start); d > time.Second {
		t.Errorf("took %v", d)
	}
	if p.Connected() {
		t.Error("an agent that was just silent counts as connected")
	}
	if err := channel.Write(conn, channel.Frame{Kind: channel.Event, Op: agentproto.OpReady}, agentproto.MaxPayload); err != nil {
		t.Fatal(err)
	}
	eventually(t, "ready", p.Connected)
	if _, err := p.Request(within(t, time.Second), 3, nil); err != nil {
		t.Fatal(err)
	}
}

func TestRequest_ends_at_its_deadline_when_nobody_reads(t *testing.T) {
	p, path := serve(t)
	conn := dial(t, path)
	if err := channel.Write(conn, channel.Frame{Kind: channel.Event, Op: agentproto.OpReady}, agentproto.MaxPayload); err != nil {
		t.Fatal(err)
	}
	eventually(t, "ready", p.Connected)
	payload := make([]byte, agentproto.MaxPayload)
	for range 10 { // more than a socket buffer holds
		start := time.Now()
		_, err := p.Request(within(t, 100*time.Millisecond), 3, payload)
		if c := code(err); c != channel.CodeTimeout && c != channel.CodeUnavailable {
			t.Fatal(err)
		}
		if d := time.Since(start); d > time.Second {
			t.Fatalf("took %v", d)
		}
		// The port may have closed the connection: a peer that reads nothing has no right to it.
		_ = channel.Write(conn, channel.Frame{Kind: channel.Event, Op: agentproto.OpReady}, agentproto.MaxPayload)
		time.Sleep(10 * time.Millisecond)
	}
}

func TestPort_understands_an_agent_that_begins_in_the_middle_of_a_frame(t *testing.T) {
	p, path := serve(t)
	conn := dial(t, path)
	half := channel.Frame{Kind: channel.Response, Op: 5, ID: 1, Payload: make([]byte, 60000)}.Append(nil)[:2000]
	if _, err := conn.Write(half); err != nil {
		t.Fatal(err)
	}
	agent(t, conn)
	eventually(t, "hello behind half a frame", p.Connected)
	if _, err := p.Request(within(t, 5*time.Second), 3, []byte("x")); err != nil {
		t.Fatal(err)
	}
}

// A guest that floods must be slowed to the rate, at constant memory, while another VM's port
// in the same process answers as before.
func TestPort_slows_a_flood_down_and_nobody_else(t *testing.T) {
	frames := bytes.Repeat(channel.Frame{Kind: channel.Event, Op: 77, Payload: make([]byte, 3000)}.Append(nil), 20)
	header := bytes.Repeat([]byte("VATT\x01\x02\x05\x00\x00\x00\x00\x01\x00\x00\xf0\x00"), 4096)
	for name, flood := range map[string][]byte{"frames": frames, "garbage": bytes.Repeat([]byte{0xff}, 65536), "headers": header} {
		t.Run(name, func(t *testing.T) {
			_, path := serve(t)
			conn := dial(t, path)
			other, otherPath := serve(t)
			agent(t, dial(t, otherPath))
			eventually(t, "the other VM's agent", other.Connected)
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			_ = conn.SetWriteDeadline(time.Now().Add(700 * time.Millisecond))
			sent := make(chan int, 1)
			go func() {
				total := 0
				for {
					n, err := conn.Write(flood)
					total += n
					if err != nil {
						sent <- total
						return
					}
				}
			}()
			for range 50 {
				start := time.Now()
				if _, err := other.Request(within(t, time.Second), 3, nil); err != nil {
					t.Fatalf("another VM's agent: %v", err)
				}
				if d := time.Since(start); d > 200*time.Millisecond {
					t.Errorf("another VM's agent took %v", d)
				}
			}
			total := <-sent
			runtime.GC()
			runtime.ReadMemStats(&after)
			const socketBuffers = 1 << 20
			if total > burst+grantSize+2*rate+socketBuffers {
				t.Errorf("%d bytes were taken in 0.7 s", total)
			}
			if grown := int64(after.HeapInuse) - int64(before.HeapInuse); grown > 2<<20 {
				t.Errorf("the heap grew by %d bytes", grown)
			}
		})
	}
}

func TestPort_still_answers_behind_a_flood(t *testing.T) {
	p, path := serve(t)
	conn := dial(t, path)
	if _, err := conn.Write(bytes.Repeat([]byte("VATT"), (burst+grantSize)/4)); err != nil {
		t.Fatal(err)
	}
	agent(t, conn)
	eventually(t, "hello", p.Connected)
	if _, err := p.Request(within(t, 5*time.Second), 3, []byte("x")); err != nil {
		t.Fatal(err)
	}
}

func TestThrottle_never_delays_answers_that_were_asked_for(t *testing.T) {
	th := throttle(nil, slog.New(slog.DiscardHandler))
	now := time.Now()
	for range 1000 {
		th.grant()
		if d := th.spend(agentproto.MaxPayload+20, now); d > 0 {
			t.Fatalf("an answer waits %v", d)
		}
	}
	th.spend(maxGrant, now)
	if th.spend(rate, now) < time.Second {
		t.Error("unasked bytes are not slowed down")
	}
}

func TestServe_keeps_the_live_connection_and_replaces_a_dead_one(t *testing.T) {
	p, path := serve(t)
	first := dial(t, path)
	agent(t, first)
	eventually(t, "first connection", p.Connected)
	second := dial(t, path)
	_ = second.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.ReadAll(second); err != nil {
		t.Fatalf("a second connection beside a live one is not closed: %v", err)
	}
	if _, err := p.Request(within(t, time.Second), 3, nil); err != nil {
		t.Fatalf("the live connection was disturbed: %v", err)
	}
	first.Close()
	agent(t, dial(t, path))
	eventually(t, "an answer by the connection after it", func() bool {
		_, err := p.Request(within(t, time.Second), 3, nil)
		return err == nil
	})
}

// The flood keeps the port's reader asleep, so that it does not see the end of the connection.
func TestServe_replaces_a_connection_that_died_while_it_was_slowed_down(t *testing.T) {
	p, path := serve(t)
	first := dial(t, path)
	_ = first.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
	for _, err := first.Write(make([]byte, 65536)); err == nil; {
		_, err = first.Write(make([]byte, 65536))
	}
	first.Close()
	agent(t, dial(t, path))
	eventually(t, "the connection after a flood", p.Connected)
}

func TestServe_refuses_a_peer_of_another_user(t *testing.T) {
	p, path := serve(t, AllowUIDs(uint32(os.Getuid()+1)))
	conn := dial(t, path)
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.ReadAll(conn); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Request(t.Context(), 1, nil); code(err) != channel.CodeUnavailable {
		t.Fatal(err)
	}
	p, path = serve(t, AllowUIDs(uint32(os.Getuid())))
	agent(t, dial(t, path))
	eventually(t, "the allowed user's connection", p.Connected)
}

func BenchmarkRequest(b *testing.B) {
	path := filepath.Join(b.TempDir(), "agent.sock")
	ln, err := net.Listen("unix", path)
	if err != nil {
		b.Fatal(err)
	}
	p := New(slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	var ends sync.WaitGroup
	ends.Go(func() { _ = p.Serve(ctx, ln) })
	conn, err := net.Dial("unix", path)
	if err != nil {
		b.Fatal(err)
	}
	ends.Go(func() {
		_ = channel.Serve(ctx, conn, agentproto.MaxPayload, func(_ context.Context, _ uint8, p []byte) ([]byte, error) { return p, nil })
	})
	for !p.Connected() {
		time.Sleep(time.Millisecond)
	}
	payload := make([]byte, 200)
	for b.Loop() {
		if _, err := p.Request(ctx, 3, payload); err != nil {
			b.Fatal(err)
		}
	}
	cancel()
	conn.Close()
	ends.Wait()
}

// A guest may send any number of events: they are counted, and nothing is kept of them.
func TestEvents_of_a_guest_are_counted(t *testing.T) {
	p, path := serve(t)
	conn := dial(t, path)
	for _, op := range []uint8{agentproto.OpReady, agentproto.OpGrown, agentproto.OpGrown, 77} {
		if err := channel.Write(conn, channel.Frame{Kind: channel.Event, Op: op}, agentproto.MaxPayload); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "counted", func() bool { ready, grown := p.Events(); return ready == 1 && grown == 2 })
	select {
	case <-p.News():
	default:
		t.Error("nobody is told")
	}
}
