package measurement_test

import (
	"fmt"

	"virt-attest/attest/measurement"
	"virt-attest/internal/measuretest"
)

// A Verifier proves a log against quoted PCRs, then reads the proven entries; the next
// quote needs only what is new.
func ExampleReplay() {
	m := measuretest.Load("ima-sig") // quoted values come from quote.Verify
	proof, err := measurement.Replay(measuretest.Cut(m.IMA, 0, 8), measurement.State{}, m.PCRs, measurement.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	for e := range proof.Entries() {
		if e.Index < 3 {
			fmt.Println(e.Index, e.PathText(), e.DigestText()[:15]+"…")
		}
	}
	next := measuretest.Cut(m.IMA, 8, 8) // nothing new
	proof, err = measurement.Replay(next, proof.State, m.PCRs, measurement.Options{})
	fmt.Println(proof.State.Count, proof.Continues, err)

	altered := m.IMA
	altered.Data = append([]byte{}, m.IMA.Data...)
	altered.Data[len(altered.Data)-10] ^= 1
	_, err = measurement.Replay(altered, measurement.State{}, m.PCRs, measurement.Options{})
	fmt.Println(err)
	// Output:
	// 0 boot_aggregate sha256:ce14c5f8…
	// 1 /init sha256:f4817b22…
	// 2 /bin/busybox sha256:3d9f2889…
	// 8 true <nil>
	// measurement: IMA entry 7: no prefix of the list gives the quoted PCR 10 of bank sha256: this entry's data is not what its template digest says
}
