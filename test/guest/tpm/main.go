// Command tpm uses a guest's vTPM as the tests need it. It goes into the guest's image (guest.Binaries)
// and nothing runs it by itself.
//
//	tpm ek                 print the name of the endorsement key
//	tpm mark TEXT          keep TEXT in the vTPM's non-volatile memory
//	tpm read               print it
//	tpm flood SECONDS      quote over ever new data, as fast as the vTPM can
package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"virt-attest/attest"
	"virt-attest/attest/quote"
	"virt-attest/internal/ptpm"
	"virt-attest/internal/tpmkeys"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "tpm:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	tpm := ptpm.Device("/dev/tpmrm0")
	defer func() { _ = tpm.Close() }()
	switch {
	case len(args) == 1 && args[0] == "ek":
		return printEK(tpm)
	case len(args) == 2 && args[0] == "mark":
		return mark(tpm, args[1])
	case len(args) == 1 && args[0] == "read":
		return read(tpm)
	case len(args) == 2 && args[0] == "flood":
		seconds, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		return flood(tpm, time.Duration(seconds)*time.Second)
	}
	return errors.New("usage: tpm ek | mark TEXT | read | flood SECONDS")
}

func printEK(tpm transport.TPM) error {
	public, err := tpmkeys.ReadEK(tpm)
	if err != nil {
		return err
	}
	name, err := quote.NameOf(public)
	if err != nil {
		return err
	}
	fmt.Printf("%x\n", []byte(name))
	return nil
}

func flood(tpm transport.TPM, how time.Duration) error {
	ak, err := tpmkeys.CreateAK(tpm)
	if err != nil {
		return err
	}
	defer func() { _ = ak.Close() }()
	nonce := make([]byte, 32)
	selection := []attest.PCRSelection{{Alg: attest.SHA256, PCRs: []uint8{0}}}
	n := 0
	for end := time.Now().Add(how); time.Now().Before(end); n++ {
		if _, err := rand.Read(nonce); err != nil {
			return err
		}
		if _, _, err := tpmkeys.Quote(tpm, ak, nonce, selection); err != nil {
			return err
		}
	}
	fmt.Println(n, "quotes")
	return nil
}

// index is one of the owner's.
const index = tpm2.TPMHandle(0x01500042)

var owner = tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)}

func mark(tpm transport.TPM, text string) error {
	_, err := tpm2.NVDefineSpace{
		AuthHandle: owner,
		PublicInfo: tpm2.New2B(tpm2.TPMSNVPublic{
			NVIndex: index, NameAlg: tpm2.TPMAlgSHA256, DataSize: uint16(len(text)),
			Attributes: tpm2.TPMANV{OwnerWrite: true, OwnerRead: true},
		}),
	}.Execute(tpm)
	if err != nil {
		return err
	}
	at, _, err := named(tpm)
	if err != nil {
		return err
	}
	_, err = tpm2.NVWrite{AuthHandle: owner, NVIndex: at, Data: tpm2.TPM2BMaxNVBuffer{Buffer: []byte(text)}}.Execute(tpm)
	return err
}

func read(tpm transport.TPM) error {
	at, size, err := named(tpm)
	if err != nil {
		return err
	}
	rsp, err := tpm2.NVRead{AuthHandle: owner, NVIndex: at, Size: size}.Execute(tpm)
	if err != nil {
		return err
	}
	fmt.Printf("%s\n", rsp.Data.Buffer)
	return nil
}

func named(tpm transport.TPM) (tpm2.NamedHandle, uint16, error) {
	rsp, err := tpm2.NVReadPublic{NVIndex: index}.Execute(tpm)
	if err != nil {
		return tpm2.NamedHandle{}, 0, err
	}
	public, err := rsp.NVPublic.Contents()
	if err != nil {
		return tpm2.NamedHandle{}, 0, err
	}
	return tpm2.NamedHandle{Handle: index, Name: rsp.NVName}, public.DataSize, nil
}
