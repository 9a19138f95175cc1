// Package measuretest has measurement logs for tests: recorded ones of real boots, each with
// the PCR values that its TPM had, and builders that write logs in the kernel's and the
// firmware's formats and extend the PCRs beside them.
//
// The recorded boots are QEMU guests with swtpm and Debian's kernel 6.1.0-56-amd64,
// ima_policy=tcb (critical: tcb|critical_data), with files that are executed, read, signed (a security.ima attribute on
// /bin/signed), named with a space and, once each, opened for writing while measured:
//
//	ima-ng, ima-sig, ima-ngv2, ima-sigv2, ima-modsig, evm-sig, ima   one per template
//	custom     ima_template_fmt=d-ng|n-ng|imode, ima_hash=sha512
//	critical   ima-buf entries, a TPM with the SHA-256 bank only
//	fourbanks  SHA-1, SHA-256, SHA-384 and SHA-512 banks, of which the kernel knows how to hash two
//	ovmf       OVMF in place of SeaBIOS; ovmf256 with SHA-256 and SHA-384 banks
package measuretest

import (
	"bufio"
	"embed"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"virt-attest/attest"
	"virt-attest/attest/measurement"
)

//go:embed testdata
var files embed.FS

// Machine is what one boot left behind.
type Machine struct {
	IMA  attest.LogSegment
	Boot []byte // nil where the same log is recorded under another name
	PCRs []attest.PCRBank
}

// Names lists the recorded boots.
func Names() []string {
	entries, err := files.ReadDir("testdata")
	if err != nil {
		panic(err)
	}
	var out []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".ima"); ok {
			out = append(out, name)
		}
	}
	return out
}

// Load gives a recorded boot; a name that does not exist panics.
func Load(name string) Machine {
	ima, err := files.ReadFile("testdata/" + name + ".ima")
	if err != nil {
		panic(err)
	}
	m := Machine{IMA: Segment(ima)}
	m.Boot, _ = files.ReadFile("testdata/" + name + ".boot")
	pcrs, err := files.ReadFile("testdata/" + name + ".pcrs")
	if err != nil {
		panic(err)
	}
	m.PCRs = parsePCRs(string(pcrs))
	return m
}

// Segment makes a whole SHA-1 list into a segment from entry 0.
func Segment(list []byte) attest.LogSegment {
	seg := attest.LogSegment{BootID: "boot-1", TemplateHash: attest.SHA1, Data: list}
	for at := 0; at < len(list); seg.Count++ {
		n, err := measurement.NextEntry(list[at:], 20)
		if err != nil {
			panic(err)
		}
		at += n
	}
	return seg
}

// Cut gives the part of seg, which begins at entry 0, from entry from up to entry to.
func Cut(seg attest.LogSegment, from, to uint64) attest.LogSegment {
	at, begin := 0, 0
	for i := uint64(0); i < to; i++ {
		if i == from {
			begin = at
		}
		n, err := measurement.NextEntry(seg.Data[at:], seg.TemplateHash.Size())
		if err != nil {
			panic(err)
		}
		at += n
	}
	if from == to {
		begin = at
	}
	seg.From, seg.Count, seg.Data = from, to-from, slices.Clone(seg.Data[begin:at])
	return seg
}

func parsePCRs(text string) []attest.PCRBank {
	var out []attest.PCRBank
	for sc := bufio.NewScanner(strings.NewReader(text)); sc.Scan(); {
		var alg, value string
		var index uint8
		if _, err := fmt.Sscan(sc.Text(), &alg, &index, &value); err != nil {
			panic(err)
		}
		a, err := attest.ParseAlg(alg)
		if err != nil {
			panic(err)
		}
		v, err := hex.DecodeString(value)
		if err != nil {
			panic(err)
		}
		if len(out) == 0 || out[len(out)-1].Alg != a {
			out = append(out, attest.PCRBank{Alg: a})
		}
		b := &out[len(out)-1]
		b.PCRs = append(b.PCRs, attest.PCR{Index: index, Value: v})
	}
	return out
}

// Only gives the named banks of banks.
func Only(banks []attest.PCRBank, algs ...attest.Alg) []attest.PCRBank {
	return slices.DeleteFunc(slices.Clone(banks), func(b attest.PCRBank) bool { return !slices.Contains(algs, b.Alg) })
}

// With gives a copy of banks in which PCR index of bank alg has value.
func With(banks []attest.PCRBank, alg attest.Alg, index uint8, value []byte) []attest.PCRBank {
	out := slices.Clone(banks)
	for i := range out {
		out[i].PCRs = slices.Clone(out[i].PCRs)
		for j := range out[i].PCRs {
			if out[i].Alg == alg && out[i].PCRs[j].Index == index {
				out[i].PCRs[j].Value = value
			}
		}
	}
	return out
}
