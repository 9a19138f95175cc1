package measurement_test

import (
	"crypto/sha1"
	"crypto/sha256"
	"fmt"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"virt-attest/attest"
	"virt-attest/attest/measurement"
	"virt-attest/internal/measuretest"
)

const benchEntries = 100_000

// benchList makes a list of ima-ng entries of about 200 bytes.
func benchList() (attest.LogSegment, []attest.PCRBank) {
	l := &measuretest.IMA{PCRs: measuretest.NewPCRs(attest.SHA256)}
	for i := range benchEntries {
		l.File(fmt.Sprintf("/usr/lib/x86_64-linux-gnu/a-directory-with-a-longer-name/and-another-one/libsomething-%08d.so.1.2.3", i), fmt.Sprint(i))
	}
	return l.Segment("bench"), measuretest.Only(l.PCRs.Values(), attest.SHA256)
}

// bare hashes what a replay has to hash at least: SHA-256 of every entry's template data, and
// SHA-256 of the PCR's old value and that digest.
func bare(seg attest.LogSegment) (data int, pcr [32]byte) {
	var buf [64]byte
	for at := 0; at < len(seg.Data); {
		n, _ := measurement.NextEntry(seg.Data[at:], 20)
		d := sha256.Sum256(seg.Data[at+4+20+4+6+4 : at+n])
		copy(buf[:32], pcr[:])
		copy(buf[32:], d[:])
		pcr = sha256.Sum256(buf[:])
		at += n
	}
	return len(seg.Data), pcr
}

// BenchmarkReplay prints entries per second, and the replay's time as a multiple of hashing, all
// measured in turns in the same run:
//
//   - x-same-hashes: of the hashes that the format demands, and nothing else: SHA-256 per entry over
//     its template data and over the 64 bytes of the PCR extension; with the template digest column
//     compared too (CheckDigests), also SHA-1 over the template data;
//   - x-one-pass: of one SHA-256 over the whole list as one string of bytes, which no format with a
//     digest per entry can reach.
func BenchmarkReplay(b *testing.B) {
	seg, quoted := benchList()
	for _, check := range []bool{false, true} {
		b.Run(fmt.Sprintf("CheckDigests=%v", check), func(b *testing.B) {
			b.ReportAllocs()
			var same, onePass, replay time.Duration
			for b.Loop() {
				same += clock(func() {
					bare(seg)
					if check {
						bareColumn(seg)
					}
				})
				onePass += clock(func() { sha256.Sum256(seg.Data) })
				replay += clock(func() {
					if _, err := measurement.Replay(seg, measurement.State{}, quoted, measurement.Options{CheckDigests: check}); err != nil {
						b.Fatal(err)
					}
				})
			}
			b.ReportMetric(benchEntries*float64(b.N)/replay.Seconds(), "entries/s")
			b.ReportMetric(float64(replay)/float64(same), "x-same-hashes")
			b.ReportMetric(float64(replay)/float64(onePass), "x-one-pass")
			b.ReportMetric(float64(len(seg.Data))/benchEntries, "B/entry")
			b.ReportMetric(0, "ns/op") // of all three together: says nothing
		})
	}
}

// clock gives the processor time that f takes: entries per second are those of one processor, also where others want
// a part of it.
func clock(f func()) time.Duration {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	start := threadTime()
	f()
	return threadTime() - start
}

func threadTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		panic(err) // every Linux has this clock
	}
	return time.Duration(t.Nano())
}

func bareColumn(seg attest.LogSegment) (last [20]byte) {
	for at := 0; at < len(seg.Data); {
		n, _ := measurement.NextEntry(seg.Data[at:], 20)
		last = sha1.Sum(seg.Data[at+4+20+4+6+4 : at+n])
		at += n
	}
	return last
}

// BenchmarkReplay_resumed is what a later replay costs: it does not grow with what was proven before.
func BenchmarkReplay_resumed(b *testing.B) {
	seg, quoted := benchList()
	p, err := measurement.Replay(seg, measurement.State{}, quoted, measurement.Options{})
	if err != nil {
		b.Fatal(err)
	}
	empty := attest.LogSegment{BootID: "bench", TemplateHash: attest.SHA1, From: p.State.Count}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := measurement.Replay(empty, p.State, quoted, measurement.Options{}); err != nil {
			b.Fatal(err)
		}
	}
}
