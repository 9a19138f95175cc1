package sidecar

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"testing"

	"virt-attest/attest"
	"virt-attest/internal/ledger"
	"virt-attest/internal/swtpmctl"
	"virt-attest/internal/tpmkeys"
	"virt-attest/internal/tpmwire"
	"virt-attest/sidecar/sidecartest"
)

// guest is the software in the VM: it knows what its TPM must say.
type guest struct {
	q      *sidecartest.QEMU
	ak     *tpmkeys.AK
	pcr    [32]byte // PCR 16
	count  uint32
	quotes []attest.Quote
	nonces [][]byte
}

// Send makes the guest's TPM a transport.TPM.
func (g *guest) Send(b []byte) ([]byte, error) { return g.q.Command(b) }

func (g *guest) extend() error {
	g.count++
	var d [32]byte
	binary.BigEndian.PutUint32(d[:], g.count)
	body := []byte{0, 0, 0, 16, 0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0x0b}
	body = append(body, d[:]...)
	b := binary.BigEndian.AppendUint32([]byte{0x80, 0x02}, uint32(10+len(body)))
	r, err := g.q.Command(append(append(b, 0, 0, 1, 0x82), body...))
	if err != nil || tpmwire.RCOf(r) != 0 {
		return fmt.Errorf("extend %d: %x %w", g.count, r, err)
	}
	g.pcr = sha256.Sum256(append(g.pcr[:], d[:]...))
	return nil
}

// check reads PCR 16, whose value tells whether every extend came exactly once and in order.
func (g *guest) check() error {
	sel := attest.PCRSelection{Alg: attest.SHA256, PCRs: []uint8{16}}
	r, err := g.q.Command(tpmwire.PCRReadCommand(sel))
	if err != nil {
		return err
	}
	_, pcrs, err := tpmwire.PCRValues(r, sel)
	if err != nil || !bytes.Equal(pcrs[0].Value, g.pcr[:]) {
		return fmt.Errorf("PCR 16 after %d extends is %v: a command was lost or came twice: %w", g.count, pcrs, err)
	}
	return nil
}

func (g *guest) quote(nonce []byte) (err error) {
	if g.ak == nil {
		if g.ak, err = tpmkeys.CreateAK(g); err != nil {
			return err
		}
	}
	quote, _, err := tpmkeys.Quote(g, g.ak, nonce, []attest.PCRSelection{{Alg: attest.SHA256, PCRs: []uint8{0, 16}}})
	g.quotes, g.nonces = append(g.quotes, quote), append(g.nonces, nonce)
	return err
}

// recorded holds the store to the guest's quotes: each exactly once, in order, as it crossed.
func (g *guest) recorded(t *testing.T, h *host) {
	t.Helper()
	var got []ledger.Record
	for r, err := range ledger.Read(filepath.Join(h.dir, "store"), childUUID) {
		if err != nil {
			t.Fatal(err)
		}
		if r.Kind == ledger.KindQuote && r.Carried == 0 {
			got = append(got, r)
		}
	}
	if len(got) != len(g.quotes) {
		t.Fatalf("%d quotes have %d records", len(g.quotes), len(got))
	}
	for i, r := range got {
		if r.Hash != g.quotes[i].Hash() || !bytes.Equal(r.Extra, g.nonces[i]) {
			t.Fatalf("record %d is of another quote", i)
		}
	}
}

// save is what QEMU does for migration and save files.
func (g *guest) save() (blobs [][]byte, err error) {
	for kind := range uint32(3) {
		b, err := g.q.Do(swtpmctl.GetStateBlob, 1, kind+1, 0)
		if err != nil {
			return nil, fmt.Errorf("blob %d: %w", kind+1, err)
		}
		blobs = append(blobs, b[16:])
	}
	return blobs, nil
}

// restore is QEMU's post_load: header and body of a blob in two writes, empty ones skipped.
func (g *guest) restore(blobs [][]byte) error {
	if _, err := g.q.Do(swtpmctl.Stop); err != nil {
		return err
	}
	for i, blob := range blobs {
		if len(blob) == 0 {
			continue
		}
		var head []byte
		for _, w := range []uint32{uint32(swtpmctl.SetStateBlob), 1, uint32(i + 1), uint32(len(blob))} {
			head = binary.BigEndian.AppendUint32(head, w)
		}
		if _, err := g.q.Request(head, blob); err != nil {
			return err
		}
	}
	_, err := g.q.Do(swtpmctl.Init, swtpmctl.InitDeleteVolatile)
	return err
}

// random does one of the things a guest does; mostly extends.
func (g *guest) random(i int) error {
	switch {
	case i%97 == 50:
		nonce := sha256.Sum256(binary.BigEndian.AppendUint32(nil, uint32(i)))
		return g.quote(nonce[:])
	case i%31 == 7:
		_, err := g.q.Do(swtpmctl.GetTPMEstablished)
		return err
	case i%53 == 9:
		return g.check()
	}
	return g.extend()
}
