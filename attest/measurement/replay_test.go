package measurement_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"virt-attest/attest"
	"virt-attest/attest/measurement"
	"virt-attest/internal/measuretest"
)

type (
	state   = measurement.State
	options = measurement.Options
)

// synth gives a list of one boot: boot_aggregate, then files.
func synth(files ...string) *measuretest.IMA {
	l := &measuretest.IMA{PCRs: measuretest.NewPCRs(attest.SHA256, attest.SHA1)}
	l.Boot()
	for _, f := range files {
		l.File(f, "content of "+f)
	}
	return l
}

func wantKind(t *testing.T, err error, kind measurement.Kind, index uint64) {
	t.Helper()
	var e *measurement.Error
	if !errors.As(err, &e) || e.Kind != kind || e.Index != index {
		t.Errorf("got error %v, want kind %d at entry %d", err, kind, index)
	}
}

func TestReplay_explains_the_PCRs_of_real_kernels_in_every_template(t *testing.T) {
	names := measuretest.Names()
	if len(names) < 10 {
		t.Fatalf("only %d recorded boots", len(names))
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			m := measuretest.Load(name)
			p, err := measurement.Replay(m.IMA, state{}, m.PCRs, options{AllowPadded: true, CheckDigests: true})
			if err != nil {
				t.Fatal(err)
			}
			if p.State.Count != m.IMA.Count || p.Tail != 0 || !p.Continues {
				t.Errorf("proved %d of %d entries, tail %d", p.State.Count, m.IMA.Count, p.Tail)
			}
			checkRecorded(t, p, m)
		})
	}
}

// checkRecorded looks for what every recorded boot did.
func checkRecorded(t *testing.T, p *measurement.Proof, m measuretest.Machine) {
	t.Helper()
	paths, violations := map[string]string{}, 0
	for e := range p.Entries() {
		if !e.Parsed {
			t.Errorf("entry %d, template %q, cannot be read", e.Index, e.Template)
		}
		if e.Violation {
			violations++
			continue
		}
		paths[e.PathText()] = e.DigestText()
		if e.IsBootAggregate() {
			alg, err := attest.ParseAlg(string(e.DigestAlg))
			if err != nil || !bytes.Equal(measurement.BootAggregate(m.PCRs, alg), e.Digest) {
				t.Errorf("boot_aggregate %s is not that of the PCRs (%v)", e.DigestText(), err)
			}
		}
	}
	for _, want := range []string{"boot_aggregate", "/init", "/bin/busybox", "/with_space/a_file", "/bin/signed", "/root/written"} {
		if paths[want] == "" {
			t.Errorf("%s is missing", want)
		}
	}
	if violations != 1 {
		t.Errorf("%d violations, want 1", violations)
	}
}

func TestReplay_refuses_padded_SHA1_in_a_strong_bank_unless_allowed(t *testing.T) { // attack 22
	m := measuretest.Load("fourbanks")
	_, err := measurement.Replay(m.IMA, state{}, m.PCRs, options{})
	wantKind(t, err, measurement.KindNotReached, 8)
	p, err := measurement.Replay(m.IMA, state{}, m.PCRs, options{AllowPadded: true})
	if err != nil || !slices.Equal(p.State.Padded, []attest.Alg{attest.SHA512, attest.SHA384}) {
		t.Errorf("padded banks %v (%v), want the two that Debian's kernel cannot hash", p.State.Padded, err)
	}
	p, err = measurement.Replay(m.IMA, state{}, measuretest.Only(m.PCRs, attest.SHA256, attest.SHA1), options{AllowPadded: true})
	if err != nil || len(p.State.Padded) != 0 {
		t.Errorf("banks that are hashed are called padded: %v (%v)", p.State.Padded, err)
	}
}

func TestReplay_never_calls_a_padded_bank_hashed(t *testing.T) {
	m := measuretest.Load("fourbanks")
	first, err := measurement.Replay(m.IMA, state{}, m.PCRs, options{AllowPadded: true})
	if err != nil {
		t.Fatal(err)
	}
	again, err := measurement.Replay(measuretest.Cut(m.IMA, 8, 8), first.State, m.PCRs, options{})
	if err != nil || len(again.State.Padded) != 2 {
		t.Errorf("forgotten when nothing new came: %v, %v", again, err)
	}
	for _, name := range []string{"fourbanks", "ovmf256"} {
		m := measuretest.Load(name)
		_, err := measurement.Replay(m.IMA, state{}, measuretest.Only(m.PCRs, attest.SHA384), options{})
		wantKind(t, err, measurement.KindNotReached, 8)
	}
}

func TestReplay_fails_if_the_log_was_changed(t *testing.T) {
	whole := synth("/bin/a", "/bin/b", "/bin/c", "/bin/d")
	seg := whole.Segment("boot")
	cut := func(from, to uint64) []byte { return measuretest.Cut(seg, from, to).Data }
	for name, test := range map[string]struct {
		data  []byte
		count uint64
		kind  measurement.Kind
		index uint64
	}{
		"attack 26: truncated at the end":        {cut(0, 4), 4, measurement.KindNotReached, 4},
		"attack 26: truncated to nothing":        {nil, 0, measurement.KindNotReached, 0},
		"attack 29: an entry dropped":            {slices.Concat(cut(0, 2), cut(3, 5)), 4, measurement.KindNotReached, 4},
		"attack 29: the first entry dropped":     {cut(1, 5), 4, measurement.KindNotReached, 4},
		"attack 29: two entries swapped":         {slices.Concat(cut(0, 1), cut(2, 3), cut(1, 2), cut(3, 5)), 5, measurement.KindNotReached, 5},
		"attack 29: an entry twice":              {slices.Concat(cut(0, 2), cut(1, 5)), 6, measurement.KindNotReached, 6},
		"attack 34: data changed, digest kept":   {bytes.Replace(seg.Data, []byte("/bin/c"), []byte("/bin/x"), 1), 5, measurement.KindAltered, 3},
		"a violation put in place of an entry":   {zeroDigest(seg.Data, cut(0, 2)), 5, measurement.KindNotReached, 5},
		"the last entry cut short":               {seg.Data[:len(seg.Data)-1], 5, measurement.KindIncomplete, 4},
		"a count that is not that of the data":   {seg.Data, 4, measurement.KindMalformed, 5},
		"an entry said to be in another PCR":     {patch(seg.Data, len(cut(0, 2)), 11), 5, measurement.KindPCR, 2},
		"an entry in a PCR that does not exist":  {patch(seg.Data, len(cut(0, 2)), 0x01010101), 5, measurement.KindMalformed, 2},
		"bytes after the last entry":             {append(slices.Clone(seg.Data), 1, 2, 3), 5, measurement.KindIncomplete, 5},
		"zero bytes in place of a template name": {append(slices.Clone(seg.Data), make([]byte, 200)...), 6, measurement.KindMalformed, 5},
	} {
		t.Run(name, func(t *testing.T) {
			s := seg
			s.Data, s.Count = test.data, test.count
			_, err := measurement.Replay(s, state{}, whole.PCRs.Values(), options{})
			wantKind(t, err, test.kind, test.index)
		})
	}
}

func zeroDigest(data, before []byte) []byte {
	out := slices.Clone(data)
	clear(out[len(before)+4 : len(before)+24])
	return out
}

func patch(data []byte, at int, word uint32) []byte {
	out := slices.Clone(data)
	binary.LittleEndian.PutUint32(out[at:], word)
	return out
}

func TestReplay_takes_a_log_that_runs_ahead_of_the_quote_and_reports_the_tail(t *testing.T) { // attack 30, F11
	l := synth("/bin/a")
	quoted := l.PCRs.Values()
	l.File("/bin/later", "x")
	l.Violation("/var/log/later")
	p, err := measurement.Replay(l.Segment("boot"), state{}, quoted, options{})
	if err != nil || p.State.Count != 2 || p.Tail != 2 {
		t.Fatalf("proof %+v, %v", p, err)
	}
	n := 0
	for e := range p.Entries() {
		if n++; e.PathText() == "/bin/later" {
			t.Error("an entry that is not under the quote was handed out")
		}
	}
	if n != 2 {
		t.Errorf("%d entries, want 2", n)
	}
	again, err := measurement.Replay(measuretest.Cut(l.Segment("boot"), 2, 4), p.State, l.PCRs.Values(), options{})
	if err != nil || again.State.Count != 4 || again.Tail != 0 {
		t.Errorf("the tail is not proven by the next quote: %+v, %v", again, err)
	}
}

func TestReplay_resumes_where_the_last_one_ended(t *testing.T) {
	l := synth("/bin/a", "/bin/b")
	first, err := measurement.Replay(l.Segment("boot"), state{}, l.PCRs.Values(), options{})
	if err != nil {
		t.Fatal(err)
	}
	l.File("/bin/c", "c")
	l.Violation("/bin/d")
	seg, quoted := l.Segment("boot"), l.PCRs.Values()
	for name, s := range map[string]attest.LogSegment{
		"from the next entry": measuretest.Cut(seg, 3, 5),
		"attack 28: from an earlier entry, what is repeated is skipped": measuretest.Cut(seg, 1, 5),
		"F12: the whole log where the rest was expected":                seg,
	} {
		t.Run(name, func(t *testing.T) {
			p, err := measurement.Replay(s, first.State, quoted, options{})
			if err != nil || p.State.Count != 5 || !p.Continues {
				t.Fatalf("%+v, %v", p, err)
			}
			var got []uint64
			for e := range p.Entries() {
				got = append(got, e.Index)
			}
			if got[0] != p.From || got[len(got)-1] != 4 {
				t.Errorf("entries %v", got)
			}
		})
	}
	_, err = measurement.Replay(measuretest.Cut(seg, 4, 5), first.State, quoted, options{})
	wantKind(t, err, measurement.KindPosition, 4)
	_, err = measurement.Replay(measuretest.Cut(seg, 1, 2), first.State, quoted, options{})
	wantKind(t, err, measurement.KindShort, 2)
	empty := measuretest.Cut(seg, 3, 3)
	_, err = measurement.Replay(empty, first.State, quoted, options{})
	wantKind(t, err, measurement.KindNotReached, 3)
}

func TestReplay_says_when_a_log_does_not_continue_the_one_before(t *testing.T) {
	first := synth("/bin/a", "/bin/evil")
	p, err := measurement.Replay(first.Segment("boot"), state{}, first.PCRs.Values(), options{})
	if err != nil {
		t.Fatal(err)
	}
	for name, other := range map[string]*measuretest.IMA{"shorter": synth("/bin/a"), "another": synth("/bin/a", "/bin/good", "/bin/c")} {
		q, err := measurement.Replay(other.Segment("boot"), p.State, other.PCRs.Values(), options{})
		if err != nil || q.Continues {
			t.Errorf("%s log: %+v, %v", name, q, err)
		}
	}
}

func TestReplay_demands_that_every_quoted_bank_ends_at_one_entry(t *testing.T) {
	l := synth("/bin/a")
	before, _ := attest.Bank(l.PCRs.Values(), attest.SHA1)
	l.File("/bin/b", "b")
	mixed := measuretest.With(l.PCRs.Values(), attest.SHA1, 10, before.Get(10))
	_, err := measurement.Replay(l.Segment("boot"), state{}, mixed, options{})
	wantKind(t, err, measurement.KindBanks, 2)
	_, err = measurement.Replay(l.Segment("boot"), state{}, nil, options{})
	wantKind(t, err, measurement.KindBanks, 0)
	p, err := measurement.Replay(l.Segment("boot"), state{}, measuretest.Only(l.PCRs.Values(), attest.SHA1), options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = measurement.Replay(measuretest.Cut(l.Segment("boot"), 3, 3), p.State, l.PCRs.Values(), options{})
	wantKind(t, err, measurement.KindBanks, 3)
}

func TestEntries_are_read_by_position_so_that_a_renamed_template_cannot_choose_its_digest(t *testing.T) {
	good := append([]byte("sha256:\x00"), bytes.Repeat([]byte{7}, 32)...)
	evil := append([]byte("sha256:\x00"), bytes.Repeat([]byte{9}, 32)...)
	for _, name := range []string{"ima-ng", "ima-sig", "sig|n-ng|d-ng", "d-modsig|n-ng|d-ng", "d|n-ng|d-ng", "anything"} {
		l := &measuretest.IMA{PCRs: measuretest.NewPCRs(attest.SHA256)}
		l.Entry(name, evil, []byte("/bin/ls\x00"), good)
		for e := range measurement.Entries(l.Segment("boot")) {
			if e.Parsed && !bytes.Equal(e.Digest, evil[8:]) {
				t.Errorf("template %q: the digest is taken from a field that the file's owner writes", name)
			}
		}
	}
}

func TestEntries_leave_unread_what_no_kernel_writes(t *testing.T) {
	d := append([]byte("sha256:\x00"), make([]byte, 32)...)
	for name, field := range map[string][][]byte{
		"no name":                  {d},
		"an empty name":            {d, {0}},
		"a name without its NUL":   {d, []byte("/bin/ls")},
		"a NUL inside the name":    {d, []byte("/bin\x00/ls\x00")},
		"an unknown hash":          {append([]byte("rot13:\x00"), make([]byte, 32)...), []byte("/a\x00")},
		"a digest of another size": {d[:39], []byte("/a\x00")},
		"no colon":                 {append([]byte("sha256\x00"), make([]byte, 32)...), []byte("/a\x00")},
		"too many fields":          slices.Concat([][]byte{d, []byte("/a\x00")}, make([][]byte, 14)),
	} {
		l := &measuretest.IMA{PCRs: measuretest.NewPCRs(attest.SHA256)}
		l.Entry("ima-ng", field...)
		p, err := measurement.Replay(l.Segment("boot"), state{}, l.PCRs.Values(), options{})
		if err != nil {
			t.Fatalf("%s: does not replay: %v", name, err)
		}
		for e := range p.Entries() {
			if e.Parsed || e.DigestText() != "" {
				t.Errorf("%s: read as %s %s", name, e.DigestText(), e.PathText())
			}
		}
	}
}

func TestEntries_keep_hostile_file_names_on_one_line(t *testing.T) {
	name := "/tmp/x\n10 abcd ima-ng sha256:00 /bin/ls\x1b[2J\\\xff\u202e"
	l := synth(name)
	for e := range measurement.Entries(l.Segment("boot")) {
		text := e.PathText()
		if strings.ContainsAny(text, "\n\x1b\u202e") {
			t.Errorf("%q", text)
		}
		if back, ok := measurement.ParsePathText(text); !ok || !bytes.Equal(back, e.Path) {
			t.Errorf("%q does not come back: %q", text, back)
		}
	}
	for _, bad := range []string{`\`, `\x4`, `\x41`, `\n`, "\n", `\xZZ`} {
		if _, ok := measurement.ParsePathText(bad); ok {
			t.Errorf("%q is a second spelling", bad)
		}
	}
}

func TestReplay_reads_lists_of_big_endian_kernels(t *testing.T) {
	d := append([]byte("sha256:\x00"), make([]byte, 32)...)
	var data []byte
	for _, f := range [][]byte{d, []byte("/bin/ls\x00")} {
		data = append(binary.BigEndian.AppendUint32(data, uint32(len(f))), f...)
	}
	list := append(binary.BigEndian.AppendUint32(nil, 10), bytes.Repeat([]byte{1}, 20)...)
	list = append(binary.BigEndian.AppendUint32(list, 6), "ima-ng"...)
	list = append(binary.BigEndian.AppendUint32(list, uint32(len(data))), data...)
	pcrs := measuretest.NewPCRs(attest.SHA256)
	pcrs.Extend(10, data)
	p, err := measurement.Replay(measuretest.Segment(list), state{}, pcrs.Values(), options{})
	if err != nil {
		t.Fatal(err)
	}
	for e := range p.Entries() {
		if !e.Parsed || e.PathText() != "/bin/ls" {
			t.Errorf("read as %+v", e)
		}
	}
}

func TestReplay_works_on_lists_with_SHA256_template_digests(t *testing.T) {
	m := measuretest.Load("ima-sig")
	wide := attest.LogSegment{TemplateHash: attest.SHA256, Count: m.IMA.Count}
	for at := 0; at < len(m.IMA.Data); {
		n, err := measurement.NextEntry(m.IMA.Data[at:], 20)
		if err != nil {
			t.Fatal(err)
		}
		e := m.IMA.Data[at : at+n]
		pad := make([]byte, 12)
		wide.Data = slices.Concat(wide.Data, e[:24], pad, e[24:])
		at += n
	}
	if _, err := measurement.Replay(wide, state{}, m.PCRs, options{}); err != nil {
		t.Error(err)
	}
	_, err := measurement.Replay(wide, state{}, m.PCRs, options{CheckDigests: true})
	wantKind(t, err, measurement.KindAltered, 0)
}

func TestReplay_bounds_its_work_on_a_log_that_never_matches(t *testing.T) { // attack 31
	l := synth()
	for range 2000 {
		l.File("/bin/a", "a")
	}
	other := synth("/bin/b")
	allocs := testing.AllocsPerRun(3, func() {
		_, err := measurement.Replay(l.Segment("boot"), state{}, other.PCRs.Values(), options{AllowPadded: true})
		wantKind(t, err, measurement.KindNotReached, 2001)
	})
	if allocs > 64 {
		t.Errorf("%v allocations for a log of 2001 entries", allocs)
	}
}

func TestNextEntry_tells_an_incomplete_entry_from_a_malformed_one(t *testing.T) {
	for _, name := range measuretest.Names() {
		list := measuretest.Load(name).IMA.Data
		n, err := measurement.NextEntry(list, 20)
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			if _, err := measurement.NextEntry(list[:i], 20); !errors.Is(err, measurement.ErrIncomplete) {
				t.Fatalf("%s cut at %d of %d: %v", name, i, n, err)
			}
		}
	}
	huge := synth("/a").Data[:34]
	huge = append(slices.Clone(huge[:34]), 0xff, 0xff, 0xff, 0x7f)
	for what, b := range map[string][]byte{"a huge length": huge, "PCR 24": {24, 0, 0, 0}, "PCR -1": {255, 255, 255, 255}} {
		if _, err := measurement.NextEntry(b, 20); !errors.Is(err, measurement.ErrMalformed) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := measurement.NextEntry(synth("/a").Data, 0); !errors.Is(err, measurement.ErrMalformed) {
		t.Error("a template hash of no size is accepted")
	}
}

func TestEntries_gives_the_signature_or_the_buffer_where_the_template_has_one(t *testing.T) {
	for name, want := range map[string]struct{ sigs, bufs int }{
		"ima-ng": {0, 0}, "ima-sig": {1, 0}, "ima-sigv2": {1, 0}, "ima-modsig": {1, 0}, "critical": {1, 1}, "evm-sig": {0, 0},
	} {
		var sigs, bufs int
		for e := range measurement.Entries(measuretest.Load(name).IMA) {
			if len(e.Sig) > 0 {
				sigs++
				if string(e.Path) != "/bin/signed" {
					t.Errorf("%s: %s has a signature", name, e.Path)
				}
			}
			if len(e.Buf) > 0 {
				bufs++
			}
		}
		if sigs != want.sigs || bufs < want.bufs {
			t.Errorf("%s: %d signatures, %d buffers", name, sigs, bufs)
		}
	}
	l := &measuretest.IMA{PCRs: measuretest.NewPCRs(attest.SHA256)}
	l.Entry("d-ng|n-ng|sig", append([]byte("sha256:\x00"), make([]byte, 32)...), []byte("/a\x00"), []byte("s"))
	for e := range measurement.Entries(l.Segment("b")) {
		if string(e.Sig) != "s" || e.Buf != nil {
			t.Errorf("a custom template: %q %q", e.Sig, e.Buf)
		}
	}
}
