package strictcbor_test

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"virt-attest/internal/strictcbor"
)

type message struct {
	List  []any          `cbor:"1,keyasint,omitempty"`
	Bytes []byte         `cbor:"2,keyasint"`
	Map   map[string]int `cbor:"3,keyasint,omitempty"`
}

func TestDecoder_refuses_what_could_be_read_in_two_ways(t *testing.T) {
	dec := strictcbor.Decoder(16, 4)
	for name, c := range map[string]struct {
		hex  string
		good bool
	}{
		"a message":                   {"a20181010240", true},
		"16 elements":                 {"a20190" + strings.Repeat("00", 16) + "0240", true},
		"17 elements":                 {"a20191" + strings.Repeat("00", 17) + "0240", false},
		"four levels":                 {"a2018181800240", true},
		"five levels":                 {"a201818181800240", false},
		"an unknown key":              {"a202400900", false},
		"a repeated key":              {"a202400240", false},
		"a repeated key of a map":     {"a2024003a2616101616102", false},
		"a list of indefinite length": {"a2019f01ff0240", false},
		"bytes of indefinite length":  {"a1025f4101ff", false},
		"a tag":                       {"a102c240", false},
		"a byte behind it":            {"a1024000", false},
		"half of it":                  {"a102", false},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := hex.DecodeString(c.hex)
			if err != nil {
				t.Fatal(err)
			}
			if err := dec.Unmarshal(b, &message{}); (err == nil) != c.good {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestEncoder_gives_one_encoding_per_value(t *testing.T) {
	m := message{Map: map[string]int{"b": 2, "a": 1, "aa": 3}}
	for nils, want := range map[cbor.NilContainersMode]string{
		cbor.NilContainerAsNull:  "a202f603a361610161620262616103",
		cbor.NilContainerAsEmpty: "a2024003a361610161620262616103",
	} {
		for range 20 { // Go's order of a map changes
			if b, err := strictcbor.Encoder(nils).Marshal(m); err != nil || hex.EncodeToString(b) != want {
				t.Fatalf("%x, %v; want %s", b, err, want)
			}
		}
	}
	if b, err := strictcbor.Encoder(cbor.NilContainerAsNull).Marshal(message{Bytes: []byte{}}); err != nil || !bytes.Equal(b, []byte{0xa1, 2, 0x40}) {
		t.Errorf("%x, %v", b, err)
	}
}
