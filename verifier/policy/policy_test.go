package policy_test

import (
	"bytes"
	"errors"
	"flag"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/appraise"
	"virt-attest/verifier/policy"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", file)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, got) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func encode(t *testing.T, f *policy.File) []byte {
	t.Helper()
	b, err := f.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDefault_is_the_strict_policy_of_a_machine_that_nobody_gave_one(t *testing.T) {
	golden(t, "default-host.json", encode(t, policy.Default(policy.KindHost)))
	golden(t, "default-vm.json", encode(t, policy.Default(policy.KindVM)))
	x, err := policy.NewIndex(policy.Default(policy.KindVM))
	if err != nil {
		t.Fatal(err)
	}
	p := x.Appraisal()
	want := appraise.Policy{Name: "default-vm", Hash: x.Hash, Banks: []attest.Alg{attest.SHA256}, PCRs: []uint8{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10},
		Keyrings: []string{".ima"}, IgnoreKeyrings: []string{}, Software: map[string]string{}, ValidFor: time.Hour}
	if !reflect.DeepEqual(p, want) {
		t.Errorf("%+v, want %+v", p, want)
	}
	if x.Scheme != attest.SchemeSEPA || x.Interval != 5*time.Minute || x.Lifetime != time.Hour || x.Jitter != 0.1 {
		t.Errorf("%+v", x)
	}
}

func file(body string) string {
	return "{\n \"format\": \"virt-attest/policy/1\", \"name\": \"n\"" + body + "\n}"
}

func TestDecode_takes_what_is_left_out_from_the_strict_default(t *testing.T) {
	f, err := policy.Decode([]byte(file(`, "ima": {"allow_kexec": true}`)))
	if err != nil {
		t.Fatal(err)
	}
	want := policy.Default(policy.KindVM)
	want.Name, want.Description, want.IMA.AllowKexec = "n", "", true
	if got := policy.Diff(f, want); len(got) != 0 {
		t.Errorf("%v", got)
	}
}

func TestDecode_refuses_what_it_does_not_understand_and_says_where(t *testing.T) {
	for name, test := range map[string]struct{ src, say string }{
		"not JSON":                                  {"{\n x", "line 2"},
		"nothing":                                   {"", "line 1, column 1: the file ends too early"},
		"another format":                            {`{"format":"virt-attest/policy/2","name":"n"}`, "format"},
		"no format":                                 {`{"name":"n"}`, "format"},
		"no name":                                   {`{"format":"virt-attest/policy/1"}`, "name"},
		"a name for a path (advisory 30)":           {`{"format":"virt-attest/policy/1","name":"../x"}`, "name"},
		"an unknown key":                            {file(",\n  \"imma\": {}"), `line 3, column 8: unknown key "imma"`},
		"what is reserved":                          {file(`, "action": "stop"`), `unknown key "action"`},
		"an unknown key inside":                     {file(`, "ima": {"logs": "required"}`), `unknown key "logs"`},
		"a key twice":                               {file(`, "ima": {}, "ima": {}`), `"ima" is there twice`},
		"a key twice inside":                        {file(`, "tpm": {"suspend": "refuse", "suspend": "allow"}`), `"suspend" is there twice`},
		"something after the end":                   {file("") + "{}", "follows the end"},
		"another scheme":                            {file(`, "scheme": "host"`), "sepa or hypa"},
		"an interval that is too short":             {file(`, "interval": "9s"`), "10s to 24h"},
		"an interval that is too long":              {file(`, "interval": "25h", "lifetime": "48h"`), "10s to 24h"},
		"a second spelling of an interval":          {file(`, "interval": "60s"`), `is written "1m"`},
		"an interval in words":                      {file(`, "interval": "5 minutes"`), "time span"},
		"an interval as a number":                   {file(`, "interval": 300`), "a string belongs here"},
		"a negative interval":                       {file(`, "interval": "-5m"`), "time span"},
		"verdicts that expire before the next":      {file(`, "interval": "1h", "lifetime": "1h"`), "longer than the interval"},
		"no lifetime":                               {file(`, "interval": "0s", "lifetime": "0s"`), "lifetime"},
		"a lifetime without end":                    {file(`, "lifetime": "721h"`), "lifetime"},
		"too much jitter":                           {file(`, "jitter": 0.6`), "0 to 0.5"},
		"negative jitter":                           {file(`, "jitter": -0.1`), "0 to 0.5"},
		"no bank":                                   {file(`, "pcrs": {"banks": []}`), "at least one bank"},
		"the SHA-1 bank (attack 22)":                {file(`, "pcrs": {"banks": ["sha1"]}`), "proves nothing"},
		"an unknown bank":                           {file(`, "pcrs": {"banks": ["sm3"]}`), "sm3"},
		"PCR 16 (attack 25)":                        {file(`, "pcrs": {"required": [10, 16]}`), "reset"},
		"PCR 24":                                    {file(`, "pcrs": {"required": [24]}`), "0 to 23"},
		"an IMA log that nothing proves":            {file(`, "pcrs": {"required": [0]}`), "PCR 10"},
		"unknown boot rules":                        {file(`, "boot": {"rules": ["ovmf"]}`), "qemu-ovmf"},
		"an event without a type":                   {file(`, "boot": {"allow": [{"pcr": 1}]}`), "pcr and type"},
		"an event without a PCR":                    {file(`, "boot": {"allow": [{"type": "EV_IPL"}]}`), "pcr and type"},
		"an event of a PCR that no boot log has":    {file(`, "boot": {"allow": [{"pcr": 10, "type": "EV_IPL"}]}`), "0 to 9"},
		"an event of an unknown type":               {file(`, "boot": {"allow": [{"pcr": 1, "type": "EV_X"}]}`), "EV_X"},
		"an event with no digest that would do":     {file(`, "boot": {"allow": [{"pcr": 1, "type": "EV_IPL", "digests": []}]}`), "allows nothing"},
		"an event by SHA-1":                         {file(`, "boot": {"allow": [{"pcr": 1, "type": "EV_IPL", "digests": ["sha1:` + strings.Repeat("0", 40) + `"]}]}`), "sha256:"},
		"an event by half a digest":                 {file(`, "boot": {"allow": [{"pcr": 1, "type": "EV_IPL", "digests": ["sha256:00"]}]}`), "64"},
		"a boot log that is perhaps required":       {file(`, "boot": {"log": "maybe"}`), "required, optional"},
		"a violations policy that is none":          {file(`, "ima": {"violations": "ignore"}`), "as-listed"},
		"a signatures policy that is none":          {file(`, "ima": {"signatures": "on"}`), "off, accept, require"},
		"a path for a keyring":                      {file(`, "ima": {"ignore_keyrings": ["/usr/bin/evil"]}`), "keyring"},
		"a keyring that is trusted and not":         {file(`, "ima": {"ignore_keyrings": [".ima"]}`), "in keyrings and in ignore_keyrings"},
		"a tail that is negative":                   {file(`, "ima": {"max_tail": -1}`), "whole number"},
		"a firmware version in words":               {file(`, "tpm": {"min_firmware": "new"}`), "65536"},
		"a least firmware that is a range":          {file(`, "tpm": {"min_firmware": "1-2"}`), "one version"},
		"a firmware range that is empty":            {file(`, "tpm": {"denied_firmware": ["7.62-7.61"]}`), "firmware"},
		"a firmware version of five numbers":        {file(`, "tpm": {"denied_firmware": ["1.2.3.4.5"]}`), "firmware"},
		"a firmware version beyond 16 bits":         {file(`, "tpm": {"denied_firmware": ["65536"]}`), "firmware"},
		"a version of software that is none":        {file(`, "software": {"qemu": "7.x"}`), "version"},
		"a program whose name no evidence has":      {file(`, "software": {"QEMU emulator": "7"}`), "name"},
		"an action that is none":                    {file(`, "enforce": {"action": "kill"}`), "cut-network"},
		"an action on good machines":                {file(`, "enforce": {"on": ["TRUSTED"]}`), "UNTRUSTED"},
		"an action on no state":                     {file(`, "enforce": {"on": []}`), "empty"},
		"an action on a word that is no state":      {file(`, "enforce": {"on": ["BAD"]}`), "UNTRUSTED"},
		"a grace without end":                       {file(`, "enforce": {"grace": "25h"}`), "grace"},
		"a gate without time to boot":               {file(`, "enforce": {"gate": {"limit": "9s"}}`), "limit"},
		"a gate that ends in a word that is none":   {file(`, "enforce": {"gate": {"otherwise": "resume"}}`), "keep-paused"},
		"a gate with links of another kind":         {file(`, "enforce": {"gate": {"links": "down"}}`), "as-defined"},
		"an unknown key of the gate":                {file(`, "enforce": {"gate": {"hold": true}}`), `unknown key "hold"`},
		"secrets by old evidence":                   {file(`, "secrets": {"max_age": "2h"}`), "max_age"},
		"an unknown key of secrets":                 {file(`, "secrets": {"age": "1m"}`), `unknown key "age"`},
		"a boolean as a word":                       {file(`, "ima": {"allow_kexec": "true"}`), "true or false"},
		"a null":                                    {file(`, "ima": null`), "an object"},
		"not UTF-8":                                 {file(", \"description\": \"\xff\""), "UTF-8"},
		"a description without end":                 {file(`, "description": "` + strings.Repeat("x", 4097) + `"`), "description"},
		"an empty minimum that would allow nothing": {file(`, "software": {"qemu": ""}`), "version"},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := policy.Decode([]byte(test.src))
			var e *policy.Error
			if !errors.As(err, &e) || f != nil || !strings.Contains(err.Error(), test.say) || !strings.HasPrefix(err.Error(), "policy: line ") {
				t.Errorf("%v, want %q", err, test.say)
			}
		})
	}
}

func example(t testing.TB) *policy.File {
	t.Helper()
	doc, err := os.ReadFile("../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(doc), "```json\n")
	src, _, ok := strings.Cut(rest, "```")
	f, err := policy.Decode([]byte(src))
	if err != nil || !ok {
		t.Fatal(err)
	}
	return f
}

func TestDecode_reads_the_example_in_the_documentation(t *testing.T) {
	f := example(t)
	golden(t, "example.json", encode(t, f))
	p := f.Appraisal()
	if p.MinFirmware != 7<<48|85<<32 || len(p.DeniedFirmware) != 2 || p.Software["qemu"] != "7.2" || p.BootEvents == nil || !p.BootLogRequired || p.MaxTail != 1000 || p.Signatures != appraise.SignaturesAccept {
		t.Errorf("%+v", p)
	}
	if d := p.DeniedFirmware; d[0] != (appraise.FirmwareRange{First: 7<<48 | 40<<32, Last: 7<<48 | 40<<32 | 0xffffffff}) || d[1].First != 7<<48|61<<32 || d[1].Last != 7<<48|62<<32|0xffffffff {
		t.Errorf("%x", d)
	}
}

// keys gives every key that a policy file can have.
func keys(typ reflect.Type, prefix string, out *[]string) {
	for i := range typ.NumField() {
		name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
		if typ.Field(i).Type.Kind() == reflect.Struct {
			keys(typ.Field(i).Type, prefix+name+".", out)
		} else {
			*out = append(*out, prefix+name)
		}
	}
}

func TestDocumentation_explains_every_key(t *testing.T) {
	doc, err := os.ReadFile("../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	keys(reflect.TypeFor[policy.File](), "", &all)
	if len(all) < 20 {
		t.Fatalf("only %d keys: %q", len(all), all)
	}
	for _, k := range all {
		if !strings.Contains(string(doc), "`"+k+"`") {
			t.Errorf("docs/policy.md does not explain %s", k)
		}
	}
}

func TestEncode_gives_one_encoding(t *testing.T) {
	a, b := example(t), example(t)
	slices.Reverse(b.Boot.Allow)
	slices.Reverse(b.TPM.DeniedFirmware)
	b.PCRs.Required = append(policy.PCRList{10, 10}, b.PCRs.Required...)
	if x, y := encode(t, a), encode(t, b); !bytes.Equal(x, y) {
		t.Errorf("%s\n%s", x, y)
	}
}

func TestAppraisal_of_a_file_that_is_none_lets_nothing_pass(t *testing.T) {
	f := policy.Default(policy.KindVM)
	f.TPM.MinFirmware = "new"
	if p := f.Appraisal(); len(p.DeniedFirmware) != 1 || p.DeniedFirmware[0].Last != math.MaxUint64 {
		t.Errorf("%+v", p)
	}
	if _, err := policy.NewIndex(f); err == nil {
		t.Error("there is an index of it")
	}
}

func TestDiff_names_every_difference_both_ways(t *testing.T) {
	a, b := policy.Default(policy.KindVM), example(t)
	got := ""
	for _, c := range policy.Diff(a, b) {
		got += c.String() + "\n"
	}
	golden(t, "diff.txt", []byte(got))
	if back := policy.Diff(b, a); len(back) != strings.Count(got, "\n") {
		t.Errorf("%d differences there, %d back", strings.Count(got, "\n"), len(back))
	}
	if same := policy.Diff(b, b); len(same) != 0 {
		t.Errorf("%v", same)
	}
}

// Every field must be in Diff, or a change of a policy would not be shown to who approves it.
func TestDiff_sees_each_key(t *testing.T) {
	for name, change := range map[string]func(f *policy.File){
		"name": func(f *policy.File) { f.Name = "x" }, "description": func(f *policy.File) { f.Description = "x" },
		"scheme": func(f *policy.File) { f.Scheme = attest.SchemeHYPA }, "interval": func(f *policy.File) { f.Interval = 0 },
		"jitter": func(f *policy.File) { f.Jitter = 0 }, "lifetime": func(f *policy.File) { f.Lifetime *= 2 },
		"pcrs.banks":            func(f *policy.File) { f.PCRs.Banks = append(f.PCRs.Banks, attest.SHA384) },
		"pcrs.required":         func(f *policy.File) { f.PCRs.Required = append(f.PCRs.Required, 11) },
		"boot.log":              func(f *policy.File) { f.Boot.Log = policy.Required },
		"boot.rules":            func(f *policy.File) { f.Boot.Rules = []string{"pc"} },
		"boot.allow":            func(f *policy.File) { f.Boot.Allow = []policy.BootAllow{{PCR: 1, Type: 1}} },
		"ima.log":               func(f *policy.File) { f.IMA.Log = policy.Optional },
		"ima.max_tail":          func(f *policy.File) { f.IMA.MaxTail = 1 },
		"ima.allow_kexec":       func(f *policy.File) { f.IMA.AllowKexec = true },
		"ima.violations":        func(f *policy.File) { f.IMA.Violations = policy.Warn },
		"ima.signatures":        func(f *policy.File) { f.IMA.Signatures = policy.Require },
		"ima.keyrings":          func(f *policy.File) { f.IMA.Keyrings = nil },
		"ima.ignore_keyrings":   func(f *policy.File) { f.IMA.IgnoreKeyrings = []string{".x"} },
		"tpm.suspend":           func(f *policy.File) { f.TPM.Suspend = policy.Refuse },
		"tpm.unsafe_clock":      func(f *policy.File) { f.TPM.UnsafeClock = policy.Refuse },
		"tpm.min_firmware":      func(f *policy.File) { f.TPM.MinFirmware = "1" },
		"tpm.denied_firmware":   func(f *policy.File) { f.TPM.DeniedFirmware = []string{"1"} },
		"software":              func(f *policy.File) { f.Software["qemu"] = "7" },
		"ima.allow_padded_sha1": func(f *policy.File) { f.IMA.AllowPaddedSHA1 = true },
	} {
		f := policy.Default(policy.KindVM)
		change(f)
		got := policy.Diff(policy.Default(policy.KindVM), f)
		if len(got) == 0 || slices.ContainsFunc(got, func(c policy.Change) bool { return c.What != name }) {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestLibrary_holds_one_index_for_one_content(t *testing.T) {
	var lib policy.Library
	src := encode(t, policy.Default(policy.KindHost))
	a, err := lib.Load(src)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := lib.Load(bytes.Clone(src)); err != nil || a != b {
		t.Error("two indexes for one content")
	}
	if _, err := lib.Load([]byte("{}")); err == nil {
		t.Error("a broken file is loaded")
	}
}

// FuzzDecode: what decodes has one encoding, which decodes to the same, and an Index.
func FuzzDecode(f *testing.F) {
	for _, file := range []*policy.File{policy.Default(policy.KindVM), example(f)} {
		b, err := file.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(file("")))
	f.Fuzz(func(t *testing.T, src []byte) {
		file, err := policy.Decode(src)
		if err != nil {
			var e *policy.Error
			if !errors.As(err, &e) || e.Line < 1 || e.Column < 1 {
				t.Fatalf("%T %v", err, err)
			}
			return
		}
		enc, err := file.Encode()
		if err != nil {
			t.Fatalf("decodes, but has no encoding: %v", err)
		}
		back, err := policy.Decode(enc)
		if err != nil {
			t.Fatalf("%v: %s", err, enc)
		}
		again, err := back.Encode()
		if err != nil || !bytes.Equal(enc, again) || len(policy.Diff(file, back)) != 0 {
			t.Errorf("two encodings (%v):\n%s\n%s", err, enc, again)
		}
		if _, err := policy.NewIndex(file); err != nil {
			t.Error(err)
		}
	})
}

func TestEnforce_is_nothing_unless_asked_for_and_leaves_old_encodings_as_they_were(t *testing.T) {
	f, err := policy.Decode([]byte(file(`, "enforce": {"undo": true, "on": ["UNTRUSTED", "ROLLBACK"]}, "secrets": {"max_age": "1m"}`)))
	if err != nil {
		t.Fatal(err)
	}
	if f.Enforce.Acts() || strings.Contains(string(encode(t, f)), "enforce") || strings.Contains(string(encode(t, f)), "secrets") {
		t.Errorf("%s", encode(t, f))
	}
	f, err = policy.Decode([]byte(file(`, "enforce": {"action": "pause", "on": ["UNTRUSTED"], "gate": {"on": true, "links": "up"}}, "secrets": {"max_age": "30s"}`)))
	if err != nil {
		t.Fatal(err)
	}
	x, err := policy.NewIndex(f)
	if err != nil {
		t.Fatal(err)
	}
	e := x.Enforce
	if !e.Acts() || e.Action != policy.Pause || len(e.On) != 1 || !e.Undo || !e.Gate.On || e.Gate.Otherwise != policy.KeepPaused || e.Gate.Links != policy.LinksUp || x.MaxAge != 30*time.Second {
		t.Errorf("%+v", x)
	}
	again, err := policy.Decode(encode(t, f))
	if err != nil {
		t.Fatal(err)
	}
	if d := policy.Diff(f, again); len(d) != 0 {
		t.Errorf("%v", d)
	}
}
