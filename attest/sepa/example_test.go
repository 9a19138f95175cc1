package sepa_test

import (
	"fmt"

	"virt-attest/attest"
	"virt-attest/attest/sepa"
	"virt-attest/internal/softhost"
)

// A Verifier asks for all VMs of a host and looks at each of them.
func ExampleVerify() {
	host := softhost.New("host-1", 2) // in place of a machine with a TPM
	challenge := host.Challenge(attest.SchemeSEPA)
	evidence := host.Answer(challenge)

	linked, err := sepa.Verify(evidence, challenge, softhost.Now)
	if err != nil {
		fmt.Println("no answer to the challenge:", err)
		return
	}
	fmt.Println("host error:", linked.Host.Err)
	for _, vm := range linked.VMs {
		// Here the caller checks that vm.AKName and vm.EKName are enrolled for vm.UUID, and
		// linked.Host.AK for the host.
		sha256, _ := attest.Bank(vm.Banks, attest.SHA256)
		fmt.Printf("%v linked: %v, PCR 10 %.8x…\n", vm.UUID, vm.Err() == nil, sha256.Get(10))
	}
	// Output:
	// host error: <nil>
	// 00000000-0000-4000-8000-000000000001 linked: true, PCR 10 ac589ccfc61a5aba…
	// 00010000-0000-4000-8000-000000000001 linked: true, PCR 10 8b44efd22054eecd…
}

// The relay attack: the guest forwards its challenge to a pristine copy of itself.
func ExampleVerify_relay() {
	host := softhost.New("host-1", 1)
	vm := host.VMs[0]
	clone, pristine := vm.TPM, vm.Banks
	vm.Banks = softhost.Banks("tampered with", attest.SHA256)
	vm.Guest = func(nonce attest.Nonce, _ attest.Quote) (attest.Quote, []byte, []attest.PCRBank) {
		return clone.Quote(nonce[:], pristine), clone.AKPublic(), pristine
	}
	challenge := host.Challenge(attest.SchemeSEPA)

	linked, err := sepa.Verify(host.Answer(challenge), challenge, softhost.Now)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("host quote:", linked.Host.Err)
	fmt.Println("VM quote:", linked.VMs[0].QuoteErr)
	fmt.Println("linked:", linked.VMs[0].LinkErr == nil)
	// Output:
	// host quote: <nil>
	// VM quote: <nil>
	// linked: false
}

// A tenant is shown its own VM under the host's quote, and nothing of others.
func ExampleVerifyProof() {
	host := softhost.New("host-1", 5)
	evidence := host.Answer(host.Challenge(attest.SchemeSEPA))
	var leaves []sepa.Leaf
	for i := range evidence.VMs {
		leaves = append(leaves, sepa.LeafOf(&evidence.VMs[i]))
	}
	body, proof := sepa.Body(leaves), sepa.Prove(leaves, 3) // the tenant gets these and leaf 3

	fmt.Println(len(proof.Path), "digests,", sepa.VerifyProof(body, leaves[3], proof))
	fmt.Println(sepa.VerifyProof(body, leaves[2], proof))
	// Output:
	// 3 digests, <nil>
	// sepa: the leaf is not under this body
}
