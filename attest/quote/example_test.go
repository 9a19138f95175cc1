package quote_test

import (
	"bytes"
	"fmt"

	"virt-attest/attest"
	"virt-attest/attest/quote"
	"virt-attest/internal/softhost"
	"virt-attest/internal/softtpm"
)

func ExampleVerify() {
	tpm := softtpm.New(bytes.NewReader(make([]byte, 32)), softtpm.ECCEK()) // in place of a TPM
	nonce := bytes.Repeat([]byte{7}, 32)
	values := softhost.Banks("machine", attest.SHA256)
	q := tpm.Quote(nonce, values)

	ak, err := quote.ParseAK(tpm.AKPublic()) // and see that ak.Name() is enrolled
	if err != nil {
		fmt.Println(err)
		return
	}
	v, err := quote.Verify(q, ak, nonce, values)
	fmt.Println(ak.Scheme(), err, v.ResetCount, len(v.Bank(attest.SHA256).PCRs))

	values[0].PCRs[7].Value[0] ^= 1
	_, err = quote.Verify(q, ak, nonce, values)
	fmt.Println(err)
	// Output:
	// ecdsa-sha256 <nil> 1 24
	// quote: the PCR values that were sent are not those that were quoted
}
