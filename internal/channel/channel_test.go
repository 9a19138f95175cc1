package channel

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const maxTest = 64 << 10

func frame(id uint32, payload string) Frame {
	f := Frame{Kind: Request, Op: 7, ID: id}
	if payload != "" {
		f.Payload = []byte(payload)
	}
	return f
}

// readAll takes every frame out of b, delivered as the wrapper says.
func readAll(t testing.TB, b []byte, wrap func(io.Reader) io.Reader) ([]Frame, *Reader) {
	t.Helper()
	r := NewReader(wrap(bytes.NewReader(b)), maxTest)
	var got []Frame
	for {
		f, err := r.Next()
		if errors.Is(err, io.EOF) {
			return got, r
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, f)
	}
}

func atOnce(r io.Reader) io.Reader { return r }

func same(a, b []Frame) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !bytes.Equal(a[i].Append(nil), b[i].Append(nil)) {
			return false
		}
	}
	return true
}

func TestAppend_gives_the_documented_bytes(t *testing.T) {
	got := hex.EncodeToString(Frame{Kind: Response, Op: 4, ID: 0x01020304, Payload: []byte("abc")}.Append(nil))
	if want := "56415454" + "01" + "02" + "04" + "00" + "01020304" + "00000003" + "616263" + "2073e375"; got != want {
		t.Fatalf("the wire format changed:\n got %s\nwant %s", got, want)
	}
}

func TestReader_finds_every_whole_frame(t *testing.T) {
	a, b := frame(1, "one"), frame(2, strings.Repeat("two", 9000))
	wire := func(parts ...any) (out []byte) {
		for _, p := range parts {
			switch p := p.(type) {
			case Frame:
				out = p.Append(out)
			case []byte:
				out = append(out, p...)
			case string:
				out = append(out, p...)
			}
		}
		return out
	}
	half := frame(9, strings.Repeat("x", 40000)).Append(nil)[:3000]
	oversized := binary.BigEndian.AppendUint32([]byte("VATT\x01\x01\x07\x00\x00\x00\x00\x05"), 0xffffffff)
	flipped := frame(3, "flipped").Append(nil)
	flipped[headerSize] ^= 1
	cases := []struct {
		name string
		in   []byte
		want []Frame
	}{
		{"joined frames", wire(a, b, a), []Frame{a, b, a}},
		{"a frame without payload", wire(frame(5, ""), a), []Frame{frame(5, ""), a}},
		{"garbage between frames", wire("login: ", a, "VATVAVATT\r\n", b), []Frame{a, b}},
		{"half a frame, then a whole one", wire(half, a), []Frame{a}},
		{"half a header, then a whole frame", wire(half[:9], a), []Frame{a}},
		{"two halves, then a whole frame", wire(half, half, b), []Frame{b}},
		{"a length of 4 GiB does not swallow what follows", wire(oversized, a), []Frame{a}},
		{"a frame with one flipped bit is dropped alone", wire(a, flipped, b), []Frame{a, b}},
		{"another version is skipped", wire("VATT\x02\x01\x07\x00\x00\x00\x00\x01\x00\x00\x00\x00", a), []Frame{a}},
		{"an unknown kind is skipped", wire("VATT\x01\x05\x07\x00\x00\x00\x00\x01\x00\x00\x00\x00", a), []Frame{a}},
		{"a magic at the very end", wire(a, "VATT"), []Frame{a}},
		{"nothing", nil, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			for name, wrap := range map[string]func(io.Reader) io.Reader{
				"at once": atOnce, "byte by byte": iotest.OneByteReader, "in halves": iotest.HalfReader, "with its error": iotest.DataErrReader,
			} {
				got, r := readAll(t, c.in, wrap)
				if !same(got, c.want) {
					t.Errorf("%s: %d frames, want %d", name, len(got), len(c.want))
				}
				total := uint64(0)
				for _, f := range got {
					total += uint64(overhead + len(f.Payload))
				}
				if total+r.Skipped() != uint64(len(c.in)) {
					t.Errorf("%s: %d bytes in frames and %d skipped of %d", name, total, r.Skipped(), len(c.in))
				}
			}
		})
	}
}

// pipe joins two ends of a stream with deadlines and closes them after the test.
func pipe(t testing.TB) (net.Conn, net.Conn) {
	a, b := net.Pipe()
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func TestReader_gives_a_half_frame_up_when_a_whole_one_is_behind_it(t *testing.T) {
	a, b := pipe(t)
	half := frame(1, strings.Repeat("x", 60000)).Append(nil)[:5000]
	go func() {
		_, _ = a.Write(half)                        // the writer dies here
		_, _ = a.Write(frame(2, "new").Append(nil)) // and its successor begins, and waits for an answer
	}()
	start := time.Now()
	f, err := NewReader(b, maxTest).Next()
	if err != nil || f.ID != 2 {
		t.Fatalf("got %v, %v", f, err)
	}
	if d := time.Since(start); d > 3*stallTime {
		t.Errorf("the new frame waited %v", d)
	}
}

func TestReader_keeps_a_frame_that_is_only_slow(t *testing.T) {
	a, b := pipe(t)
	wire := frame(1, strings.Repeat("slow", 3000)).Append(nil)
	go func() {
		_, _ = a.Write(wire[:7000])
		time.Sleep(stallTime + stallTime/2)
		_, _ = a.Write(wire[7000:])
	}()
	f, err := NewReader(b, maxTest).Next()
	if err != nil || f.ID != 1 {
		t.Fatalf("got %v, %v", f.ID, err)
	}
}

// A log entry or a file name may hold the bytes of a frame. As long as the outer frame comes
// through, what is inside it is payload.
func TestReader_does_not_take_a_frame_out_of_a_frame(t *testing.T) {
	inner := frame(66, "forged")
	outer := frame(1, string(inner.Append(nil))+strings.Repeat("y", 20000))
	for _, wrap := range []func(io.Reader) io.Reader{atOnce, iotest.OneByteReader, iotest.HalfReader} {
		got, _ := readAll(t, outer.Append(nil), wrap)
		if !same(got, []Frame{outer}) {
			t.Fatalf("got %d frames, first id %d", len(got), got[0].ID)
		}
	}
}

func TestReader_allocates_for_what_arrived_and_not_for_what_a_header_claims(t *testing.T) {
	a, b := pipe(t)
	r := NewReader(b, 1<<30)
	go func() {
		_, _ = a.Write(binary.BigEndian.AppendUint32([]byte("VATT\x01\x01\x07\x00\x00\x00\x00\x05"), 1<<30))
		a.Close()
	}()
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if cap(r.buf) > 2*minBuffer {
		t.Errorf("the window grew to %d bytes", cap(r.buf))
	}
}

func TestReader_is_small_again_after_a_large_frame(t *testing.T) {
	a, b := pipe(t)
	r := NewReader(b, maxTest)
	go func() {
		_, _ = a.Write(frame(1, strings.Repeat("x", maxTest)).Append(nil))
		a.Close()
	}()
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if cap(r.buf) > 2*minBuffer {
		t.Errorf("an idle Reader holds %d bytes", cap(r.buf))
	}
}

// Work per byte of a flood must not depend on what its headers claim: 1 MiB of headers that
// overlap would otherwise be summed up 65,536 times over 64 KiB.
func TestReader_works_in_proportion_to_a_flood_of_headers(t *testing.T) {
	header := binary.BigEndian.AppendUint32([]byte("VATT\x01\x01\x07\x00\x00\x00\x00\x05"), maxTest)
	flood := bytes.Repeat(header, (4<<20)/len(header))
	start := time.Now()
	got, r := readAll(t, append(flood, frame(1, "after").Append(nil)...), atOnce)
	if !same(got, []Frame{frame(1, "after")}) {
		t.Fatalf("%d frames", len(got))
	}
	if r.effort < 0 {
		t.Errorf("effort is %d", r.effort)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("4 MiB took %v", d)
	}
}

func echo(_ context.Context, op uint8, p []byte) ([]byte, error) {
	switch op {
	case 1:
		return p, nil
	case 2:
		return nil, &RemoteError{CodeUnavailable, "not now"}
	case 3:
		return make([]byte, maxTest+1), nil
	default:
		return nil, errors.New("broken " + strings.Repeat("é", maxMessage))
	}
}

// session runs a client against Serve and ends both.
func session(t *testing.T, h Handler) (*Client, net.Conn) {
	a, b := pipe(t)
	c := NewClient(a, maxTest, nil)
	var ends sync.WaitGroup
	ends.Go(func() { _ = c.Run() })
	ends.Go(func() { _ = Serve(t.Context(), b, maxTest, h) })
	t.Cleanup(func() { a.Close(); b.Close(); ends.Wait() })
	return c, a
}

func TestDo_returns_the_answer_or_the_peers_own_error(t *testing.T) {
	c, _ := session(t, echo)
	if b, err := c.Do(t.Context(), 1, []byte("hi")); err != nil || string(b) != "hi" {
		t.Fatalf("%q, %v", b, err)
	}
	for op, want := range map[uint8]Code{2: CodeUnavailable, 3: CodeFailed, 4: CodeFailed} {
		var remote *RemoteError
		if _, err := c.Do(t.Context(), op, nil); !errors.As(err, &remote) || remote.Code != want {
			t.Errorf("op %d: %v", op, err)
		} else if len(remote.Message) > maxMessage {
			t.Errorf("op %d: a message of %d bytes", op, len(remote.Message))
		}
	}
	if _, err := c.Do(t.Context(), 1, make([]byte, maxTest+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("oversized request: %v", err)
	}
}

func TestDo_ends_with_its_own_deadline_while_others_are_answered(t *testing.T) {
	block := make(chan struct{})
	a, b := pipe(t)
	c := NewClient(a, maxTest, nil)
	var ends sync.WaitGroup
	ends.Go(func() { _ = c.Run() })
	ends.Go(func() { // answers op 1 at once and op 9 never
		_ = Serve(t.Context(), b, maxTest, func(_ context.Context, op uint8, p []byte) ([]byte, error) {
			if op == 9 {
				<-block
			}
			return p, nil
		})
	})
	if _, err := c.Do(t.Context(), 1, nil); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Do(ctx, 9, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond) // net.Pipe has no buffer: the write itself blocks
	defer cancel()
	if _, err := c.Do(ctx, 1, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	close(block)
	if b, err := c.Do(t.Context(), 1, []byte("again")); err != nil || string(b) != "again" {
		t.Fatalf("after the peer recovered: %q, %v", b, err)
	}
	a.Close()
	ends.Wait()
}

func TestDo_fails_for_all_when_the_connection_ends(t *testing.T) {
	c, conn := session(t, func(ctx context.Context, _ uint8, _ []byte) ([]byte, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	errs := make(chan error, 1)
	go func() { _, err := c.Do(context.Background(), 1, nil); errs <- err }()
	time.Sleep(10 * time.Millisecond)
	conn.Close()
	if err := <-errs; !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	if _, err := c.Do(context.Background(), 1, nil); !errors.Is(err, ErrClosed) && !errors.Is(err, io.ErrClosedPipe) {
		t.Fatal(err)
	}
}

func TestDo_ignores_answers_that_belong_to_no_request(t *testing.T) {
	a, b := pipe(t)
	c := NewClient(a, maxTest, nil)
	var end sync.WaitGroup
	end.Go(func() { _ = c.Run() })
	go func() {
		r := NewReader(b, maxTest)
		f, _ := r.Next()
		for _, answer := range []Frame{
			{Kind: Response, Op: f.Op, ID: f.ID + 1, Payload: []byte("other number")},
			{Kind: Response, Op: f.Op + 1, ID: f.ID, Payload: []byte("other op")},
			{Kind: Response, Op: f.Op, ID: f.ID, Payload: []byte("right")},
			{Kind: Response, Op: f.Op, ID: f.ID, Payload: []byte("twice")},
		} {
			_ = Write(b, answer, maxTest) // the test ends the connection once it has the right one
		}
	}()
	if got, err := c.Do(t.Context(), 1, nil); err != nil || string(got) != "right" {
		t.Fatalf("%q, %v", got, err)
	}
	a.Close()
	end.Wait()
}

// An error of the peer may hold anything.
func TestAnswer_bounds_what_a_hostile_peer_reports(t *testing.T) {
	b, err := Encode(RemoteError{Code: "TRUSTED", Message: strings.Repeat("A", 60000)})
	if err != nil {
		t.Fatal(err)
	}
	var remote *RemoteError
	if _, err = answer(Frame{Kind: Error, Payload: b}); !errors.As(err, &remote) || remote.Code != CodeFailed || len(remote.Message) > maxMessage {
		t.Errorf("%.80v", err)
	}
	if _, err = answer(Frame{Kind: Error, Payload: []byte{0xff}}); err == nil || errors.As(err, &remote) && remote.Message == "" {
		t.Errorf("%v", err)
	}
}

func TestDecode_refuses_a_second_encoding(t *testing.T) {
	for name, b := range map[string][]byte{
		"unknown key":       {0xa3, 1, 0x61, 'a', 2, 0x61, 'b', 3, 0},
		"repeated key":      {0xa2, 1, 0x61, 'a', 1, 0x61, 'b'},
		"indefinite length": {0xbf, 1, 0x61, 'a', 0xff},
		"trailing bytes":    {0xa1, 1, 0x61, 'a', 0},
	} {
		var e RemoteError
		if err := Decode(b, &e); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// FuzzReader: whatever came before, a whole frame is found; how the bytes are cut makes no
// difference; every frame found is in the input byte for byte.
func FuzzReader(f *testing.F) {
	f.Add([]byte("VATT\x01\x01\x07\x00\x00\x00\x00\x05\x00\x00\x10\x00abc"), uint64(1))
	f.Add(frame(1, "x").Append(frame(2, "yy").Append([]byte("VAT"))), uint64(2))
	f.Add([]byte("VVAVATVATTVATT\x01"), uint64(3))
	f.Add([]byte{}, uint64(4))
	f.Fuzz(func(t *testing.T, garbage []byte, seed uint64) {
		last := frame(0xfeedface, "the frame behind")
		in := last.Append(bytes.Clone(garbage))
		a, ra := readAll(t, in, atOnce)
		b, rb := readAll(t, in, func(r io.Reader) io.Reader { return &choppy{r, rand.New(rand.NewPCG(seed, 1))} })
		if !same(a, b) || ra.Skipped() != rb.Skipped() {
			t.Fatalf("%d frames at once, %d in pieces", len(a), len(b))
		}
		if len(a) == 0 || !bytes.Equal(a[len(a)-1].Append(nil), last.Append(nil)) {
			t.Fatal("the whole frame at the end was lost")
		}
		for _, x := range a {
			if !bytes.Contains(in, x.Append(nil)) {
				t.Fatal("a frame that was never sent")
			}
		}
	})
}

type choppy struct {
	r   io.Reader
	rng *rand.Rand
}

func (c *choppy) Read(p []byte) (int, error) {
	return c.r.Read(p[:min(len(p), 1+c.rng.IntN(40))])
}

func BenchmarkReader(b *testing.B) {
	wire := frame(1, strings.Repeat("x", 1024)).Append(nil)
	in := bytes.Repeat(wire, 64)
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		readAll(b, in, atOnce)
	}
}
