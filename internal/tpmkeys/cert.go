package tpmkeys

import (
	"encoding/asn1"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"virt-attest/attest"
)

// ErrNoEKCert says that the TPM holds no certificate for its RSA-2048 endorsement key.
var ErrNoEKCert = errors.New("tpmkeys: no endorsement key certificate in the TPM")

// ReadEKCert gives the DER certificate of the RSA-2048 endorsement key from NV index 0x01c00002,
// at most attest.MaxCert bytes, without the padding that some makers put behind it.
func ReadEKCert(tpm transport.TPM) ([]byte, error) {
	pub, err := tpm2.NVReadPublic{NVIndex: ekCertNV}.Execute(tpm)
	if errors.Is(err, tpm2.TPMRCHandle) || errors.Is(err, tpm2.TPMRCValue) {
		return nil, ErrNoEKCert
	}
	if err != nil {
		return nil, fmt.Errorf("tpmkeys: find EK certificate: %w", err)
	}
	nv, err := pub.NVPublic.Contents()
	if err != nil || nv.DataSize > attest.MaxCert {
		return nil, fmt.Errorf("tpmkeys: EK certificate over %d bytes or unreadable", attest.MaxCert)
	}
	data, err := readNV(tpm, tpm2.NamedHandle{Handle: ekCertNV, Name: pub.NVName}, int(nv.DataSize))
	if err != nil {
		return nil, fmt.Errorf("tpmkeys: read EK certificate: %w", err)
	}
	var der asn1.RawValue
	if _, err := asn1.Unmarshal(data, &der); err != nil {
		return nil, fmt.Errorf("tpmkeys: EK certificate: %w", err)
	}
	return der.FullBytes, nil
}

func readNV(tpm transport.TPM, index tpm2.NamedHandle, size int) ([]byte, error) {
	data := make([]byte, 0, size)
	for len(data) < size {
		rsp, err := tpm2.NVRead{
			AuthHandle: tpm2.AuthHandle{Handle: index.Handle, Name: index.Name, Auth: tpm2.PasswordAuth(nil)},
			NVIndex:    index,
			Size:       uint16(min(nvChunk, size-len(data))),
			Offset:     uint16(len(data)),
		}.Execute(tpm)
		if err != nil {
			return nil, err
		}
		if len(rsp.Data.Buffer) == 0 {
			return nil, errors.New("TPM2_NV_Read gave nothing")
		}
		data = append(data, rsp.Data.Buffer...)
	}
	return data, nil
}
