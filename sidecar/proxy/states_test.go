package proxy_test

import (
	"encoding/binary"
	"testing"

	"virt-attest/internal/ledger"
	"virt-attest/internal/swtpmctl"
	"virt-attest/internal/tpmkeys"
	"virt-attest/sidecar/sidecartest"
)

// take is QEMU's pre_save.
func take(t *testing.T, q *sidecartest.QEMU) (blobs [][]byte) {
	t.Helper()
	for kind := range uint32(3) {
		b, err := q.Do(swtpmctl.GetStateBlob, 1, kind+1, 0)
		if err != nil {
			t.Fatal(err)
		}
		blobs = append(blobs, b[16:])
	}
	return blobs
}

// give is QEMU's post_load.
func give(t *testing.T, q *sidecartest.QEMU, blobs [][]byte) {
	t.Helper()
	if _, err := q.Do(swtpmctl.Stop); err != nil {
		t.Fatal(err)
	}
	for i, blob := range blobs {
		if len(blob) == 0 {
			continue
		}
		var head []byte
		for _, w := range []uint32{uint32(swtpmctl.SetStateBlob), 1, uint32(i + 1), uint32(len(blob))} {
			head = binary.BigEndian.AppendUint32(head, w)
		}
		if _, err := q.Request(head, blob); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := q.Do(swtpmctl.Init, swtpmctl.InitDeleteVolatile); err != nil {
		t.Fatal(err)
	}
}

// Attack: a snapshot of a good moment is reverted to after the VM was attested later and nothing was measured in between. Nothing
// in the vTPM shows it: resetCount stays and libtpms lets the clock run on.
func TestProxy_knows_an_earlier_state_that_is_restored(t *testing.T) {
	r := newRig(t)
	q := r.connect(t)
	want := func(what string, rolledBack bool) {
		t.Helper()
		if got := r.book.RolledBack() != ""; got != rolledBack {
			t.Errorf("%s: rolled back is %v: %q", what, got, r.book.RolledBack())
		}
	}
	use := func() {
		t.Helper()
		if _, err := tpmkeys.AllocatedBanks(sender{q}); err != nil {
			t.Fatal(err)
		}
	}
	first := take(t, q)
	give(t, q, first)
	want("saved and restored", false)
	give(t, q, first)
	want("and once more, before it was used", false)
	use()
	second := take(t, q)
	use()
	give(t, q, second)
	want("a snapshot, and its revert after the guest went on", true)
	use()
	want("the guest goes on", true)
	if _, err := q.Do(swtpmctl.Stop); err != nil {
		t.Fatal(err)
	}
	if _, err := q.Do(swtpmctl.Init, 0); err != nil {
		t.Fatal(err)
	}
	want("a reset", false)
	give(t, q, first)
	want("the state of long ago", true)
	var causes []string
	for rec, err := range ledger.Read(r.store, testUUID) {
		if err != nil {
			t.Fatal(err)
		}
		if rec.Kind == ledger.KindPowerOn {
			causes = append(causes, rec.Cause)
		}
	}
	t.Log(causes)
}
