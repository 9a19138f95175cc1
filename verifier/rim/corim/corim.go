// Package corim reads and writes reference values as a CoRIM, the concise reference integrity manifest that vendors and
// other Verifiers exchange (draft-ietf-rats-corim): an unsigned one with one CoMID, whose reference triples hold digests of files under
// their paths, digests without a place, and values of PCRs as integrity registers.
//
// A CoRIM says far more than a rim.File can, and a little less. What the other side cannot say is an error that names it, in both
// directions: a condition that was dropped in silence would allow what its author did not.
package corim

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/fxamacker/cbor/v2"

	"virt-attest/attest"
	"virt-attest/verifier/rim"
)

// Tags of the draft's section 12 (IANA CBOR tags).
const (
	tagUnsigned = 501 // an unsigned CoRIM
	tagSigned   = 18  // COSE_Sign1
	tagCoMID    = 506
)

// Algorithms of digests, as IANA's Named Information registry numbers them. SHA-1 has no number there.
var algorithms = map[string]int{"sha256": 1, "sha384": 7, "sha512": 8}

type manifest struct {
	ID         any               `cbor:"0,keyasint"`
	Tags       []cbor.RawMessage `cbor:"1,keyasint"`
	Dependent  cbor.RawMessage   `cbor:"2,keyasint,omitempty"`
	Profile    cbor.RawMessage   `cbor:"3,keyasint,omitempty"`
	Validity   cbor.RawMessage   `cbor:"4,keyasint,omitempty"`
	Entities   cbor.RawMessage   `cbor:"5,keyasint,omitempty"` // who made it: nothing depends on it
	Extensions cbor.RawMessage   `cbor:"6,keyasint,omitempty"`
}

type comid struct {
	Language any             `cbor:"0,keyasint,omitempty"`
	Identity identity        `cbor:"1,keyasint"`
	Entities cbor.RawMessage `cbor:"2,keyasint,omitempty"`
	Linked   cbor.RawMessage `cbor:"3,keyasint,omitempty"`
	Triples  triples         `cbor:"4,keyasint"`
}

type identity struct {
	ID      any    `cbor:"0,keyasint"`
	Version uint64 `cbor:"1,keyasint,omitempty"`
}

// triples are what a CoMID states. Only reference values are understood.
type triples struct {
	Reference []reference     `cbor:"0,keyasint,omitempty"`
	Endorsed  cbor.RawMessage `cbor:"1,keyasint,omitempty"`
	Identity  cbor.RawMessage `cbor:"2,keyasint,omitempty"`
	AttestKey cbor.RawMessage `cbor:"3,keyasint,omitempty"`
}

type reference struct {
	_            struct{} `cbor:",toarray"`
	Environment  cbor.RawMessage
	Measurements []measurement
}

type measurement struct {
	Key        any             `cbor:"0,keyasint,omitempty"`
	Value      values          `cbor:"1,keyasint"`
	Authorized cbor.RawMessage `cbor:"2,keyasint,omitempty"`
}

type values struct {
	Digests   []digest            `cbor:"2,keyasint,omitempty"`
	Name      string              `cbor:"11,keyasint,omitempty"` // for people
	Registers map[uint64][]digest `cbor:"14,keyasint,omitempty"`
}

type digest struct {
	_     struct{} `cbor:",toarray"`
	Alg   any
	Value []byte
}

// environment is the target of reference values: a class of machines, by name.
type environment struct {
	Class class `cbor:"0,keyasint"`
}

type class struct {
	Vendor string `cbor:"1,keyasint,omitempty"`
	Model  string `cbor:"2,keyasint,omitempty"`
}

// Encode writes reference values as an unsigned CoRIM, in the deterministic encoding.
func Encode(f *rim.File) ([]byte, error) {
	if err := expressible(f); err != nil {
		return nil, err
	}
	mode, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		return nil, err
	}
	list, err := measurements(f)
	if err != nil {
		return nil, err
	}
	enc, err := f.Encode()
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(enc)
	env, err := mode.Marshal(environment{class{Vendor: "virt-attest", Model: f.Name}})
	if err != nil {
		return nil, err
	}
	tag := f.Name + "-" + hex.EncodeToString(sum[:8])
	inner, err := mode.Marshal(comid{Identity: identity{ID: tag}, Triples: triples{Reference: []reference{{Environment: env, Measurements: list}}}})
	if err != nil {
		return nil, err
	}
	wrapped, err := mode.Marshal(cbor.Tag{Number: tagCoMID, Content: inner})
	if err != nil {
		return nil, err
	}
	return mode.Marshal(cbor.Tag{Number: tagUnsigned, Content: manifest{ID: tag, Tags: []cbor.RawMessage{wrapped}}})
}

// expressible refuses what a CoRIM cannot say.
func expressible(f *rim.File) error {
	var lost []string
	for what, there := range map[string]bool{"boot_events": len(f.BootEvents) > 0, "keys": len(f.Keys) > 0, "exclude": len(f.Exclude) > 0,
		"violation_paths": len(f.ViolationPaths) > 0, "violations: warn": f.Violations == rim.ViolationsWarn} {
		if there {
			lost = append(lost, what)
		}
	}
	if slices.Sort(lost); len(lost) > 0 {
		return fmt.Errorf("corim: a CoRIM cannot say what these reference values say by %s", strings.Join(lost, ", "))
	}
	if len(f.PCRs)+len(f.IMA)+len(f.Digests) == 0 {
		return errors.New("corim: the reference values allow nothing, which a CoRIM cannot say")
	}
	return nil
}

func measurements(f *rim.File) ([]measurement, error) {
	var out []measurement
	for _, alg := range slices.Sorted(maps.Keys(f.PCRs)) {
		for _, index := range slices.Sorted(maps.Keys(f.PCRs[alg])) {
			m := measurement{Value: values{Registers: map[uint64][]digest{}}}
			for _, v := range f.PCRs[alg][index] {
				m.Value.Registers[uint64(index)] = append(m.Value.Registers[uint64(index)], digest{Alg: algorithms[alg.String()], Value: v})
			}
			if len(m.Value.Registers) == 0 {
				return nil, fmt.Errorf("corim: PCR %d may have no value, which a CoRIM cannot say", index)
			}
			out = append(out, m)
		}
	}
	add := func(key any, texts []string) error {
		m := measurement{Key: key}
		for _, s := range texts {
			d, err := toDigest(s)
			if err != nil {
				return err
			}
			m.Value.Digests = append(m.Value.Digests, d)
		}
		if len(m.Value.Digests) == 0 {
			return fmt.Errorf("corim: %v may have no digest, which a CoRIM cannot say", key)
		}
		out = append(out, m)
		return nil
	}
	for _, path := range slices.Sorted(maps.Keys(f.IMA)) {
		if err := add(path, f.IMA[path]); err != nil {
			return nil, err
		}
	}
	if len(f.Digests) > 0 {
		if err := add(nil, f.Digests); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func toDigest(s string) (digest, error) {
	alg, value, _ := strings.Cut(s, ":")
	n, ok := algorithms[alg]
	b, err := hex.DecodeString(value)
	if !ok || err != nil {
		return digest{}, fmt.Errorf("corim: a CoRIM has no name for the hash of %.24s…", s)
	}
	return digest{Alg: n, Value: b}, nil
}

// Decode reads an unsigned CoRIM as reference values of a name. A signed one is refused: nobody here knows whose signature would count.
func Decode(b []byte, name string) (*rim.File, error) {
	if len(b) > rim.MaxFile {
		return nil, fmt.Errorf("corim: over %d bytes", rim.MaxFile)
	}
	mode, err := cbor.DecOptions{DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		MaxArrayElements: rim.MaxFiles + 64, MaxMapPairs: rim.MaxFiles + 64, MaxNestedLevels: 16}.DecMode()
	if err != nil {
		return nil, err
	}
	r := &reader{mode: mode, out: &rim.File{Format: rim.Format, Name: name, IMA: map[string][]string{}}}
	if err := r.manifest(b); err != nil {
		return nil, fmt.Errorf("corim: %w", err)
	}
	if _, err := rim.NewIndex(r.out); err != nil {
		return nil, fmt.Errorf("corim: %w", err)
	}
	return r.out, nil
}

// reader fills reference values.
type reader struct {
	mode cbor.DecMode
	out  *rim.File
	env  string // the one environment, encoded
}

func (r *reader) manifest(b []byte) error {
	var tag cbor.RawTag
	if err := r.mode.Unmarshal(b, &tag); err != nil {
		return fmt.Errorf("it is no CoRIM: %w", err)
	}
	if tag.Number == tagSigned {
		return errors.New("it is signed; check its signature with the tools of whom it comes from, and import what is inside")
	}
	if tag.Number != tagUnsigned {
		return fmt.Errorf("it is no unsigned CoRIM (tag %d, not %d)", tag.Number, tagUnsigned)
	}
	var m manifest
	if err := r.mode.Unmarshal(tag.Content, &m); err != nil {
		return err
	}
	for what, part := range map[string]cbor.RawMessage{"dependent-rims": m.Dependent, "profile": m.Profile, "rim-validity": m.Validity, "extensions": m.Extensions} {
		if len(part) > 0 {
			return cannot(what)
		}
	}
	if len(m.Tags) == 0 {
		return errors.New("it holds nothing")
	}
	for _, t := range m.Tags {
		if err := r.tag(t); err != nil {
			return err
		}
	}
	return nil
}

func cannot(what string) error {
	return fmt.Errorf("it has %s, which reference values here cannot say", what)
}

func (r *reader) tag(b []byte) error {
	var tag cbor.Tag
	if err := r.mode.Unmarshal(b, &tag); err != nil {
		return err
	}
	inner, ok := tag.Content.([]byte)
	if tag.Number != tagCoMID || !ok {
		return cannot(fmt.Sprintf("a part with tag %d (a CoSWID, or a list of tags)", tag.Number))
	}
	var c comid
	if err := r.mode.Unmarshal(inner, &c); err != nil {
		return err
	}
	for what, part := range map[string]cbor.RawMessage{"linked tags": c.Linked, "endorsed values": c.Triples.Endorsed, "identity keys": c.Triples.Identity, "attest keys": c.Triples.AttestKey} {
		if len(part) > 0 {
			return cannot(what)
		}
	}
	for _, t := range c.Triples.Reference {
		if env := string(t.Environment); r.env == "" {
			r.env = env
		} else if r.env != env {
			return errors.New("it is about several environments; import each by itself")
		}
		for _, m := range t.Measurements {
			if err := r.measurement(m); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *reader) measurement(m measurement) error {
	path, isText := m.Key.(string)
	switch {
	case len(m.Authorized) > 0:
		return cannot("measurements that only some authority may state")
	case m.Key != nil && !isText:
		return cannot(fmt.Sprintf("a measurement of %v, which is no path", m.Key))
	case len(m.Value.Digests)+len(m.Value.Registers) == 0:
		return errors.New("a measurement has neither digests nor registers")
	case len(m.Value.Registers) > 0 && isText:
		return cannot("registers of " + path)
	}
	for _, d := range m.Value.Digests {
		alg, err := d.name()
		if err != nil {
			return err
		}
		text := alg + ":" + hex.EncodeToString(d.Value)
		if isText {
			r.out.IMA[path] = append(r.out.IMA[path], text)
		} else {
			r.out.Digests = append(r.out.Digests, text)
		}
	}
	for index, list := range m.Value.Registers {
		for _, d := range list {
			if err := r.register(index, d); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *reader) register(index uint64, d digest) error {
	name, err := d.name()
	if err != nil {
		return err
	}
	alg, err := attest.ParseAlg(name)
	if err != nil || index >= attest.PCRCount || len(d.Value) != alg.Size() {
		return fmt.Errorf("register %d has %d bytes of %s, which is no value of a PCR", index, len(d.Value), name)
	}
	if r.out.PCRs == nil {
		r.out.PCRs = map[attest.Alg]map[uint8][]attest.HexBytes{}
	}
	if r.out.PCRs[alg] == nil {
		r.out.PCRs[alg] = map[uint8][]attest.HexBytes{}
	}
	r.out.PCRs[alg][uint8(index)] = append(r.out.PCRs[alg][uint8(index)], d.Value)
	return nil
}

// name is the kernel's name of a digest's hash.
func (d digest) name() (string, error) {
	for name, n := range algorithms {
		if d.Alg == uint64(n) || d.Alg == "sha-"+strings.TrimPrefix(name, "sha") {
			return name, nil
		}
	}
	return "", cannot(fmt.Sprintf("a digest by algorithm %v", d.Alg))
}
