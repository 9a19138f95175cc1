package hypa_test

import (
	"fmt"

	"virt-attest/attest"
	"virt-attest/attest/hypa"
	"virt-attest/internal/softhost"
)

// One pTPM quote vouches for the vPCRs of all VMs.
func ExampleVerify() {
	host := softhost.New("host-1", 3) // in place of a machine with a TPM
	challenge := host.Challenge(attest.SchemeHYPA)
	evidence := host.Answer(challenge)

	linked, err := hypa.Verify(evidence, challenge, softhost.Now)
	if err != nil {
		fmt.Println("no answer to the challenge:", err)
		return
	}
	// Here the caller checks that linked.Host.AK is enrolled for the host, and judges the host
	// before it believes what the host read.
	fmt.Println(len(linked.VMs), "VMs,", linked.Err())

	evidence.VMs[1].PCRs[0].PCRs[10].Value[0] ^= 1 // somebody changes one vPCR on the way
	linked, _ = hypa.Verify(evidence, challenge, softhost.Now)
	fmt.Println("proven banks of VM 0:", len(linked.VMs[0].Banks))
	// Output:
	// 3 VMs, <nil>
	// proven banks of VM 0: 0
}
