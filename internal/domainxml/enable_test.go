package domainxml

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"libvirt.org/go/libvirtxml"

	"virt-attest/attest"
)

// dumps gives the checked-in outputs of virsh dumpxml --inactive (libvirt 9.0).
func dumps(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("testdata/domains/*.xml")
	if err != nil || len(files) < 3 {
		t.Fatalf("%d dumps, %v", len(files), err)
	}
	out := make(map[string]string)
	for _, f := range files {
		out[strings.TrimSuffix(filepath.Base(f), ".xml")] = read(t, f)
	}
	return out
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func enable(t *testing.T, doc string) (string, Change) {
	t.Helper()
	out, change, err := Enable(doc)
	if err != nil {
		t.Fatal(err)
	}
	return out, change
}

func disable(t *testing.T, doc string) (string, Change) {
	t.Helper()
	out, change, err := Disable(doc)
	if err != nil {
		t.Fatal(err)
	}
	return out, change
}

func TestEnable_writes_what_the_golden_files_show_and_Disable_takes_every_byte_back(t *testing.T) {
	for name, doc := range dumps(t) {
		t.Run(name, func(t *testing.T) {
			on, change := enable(t, doc)
			golden := filepath.Join("testdata/enabled", name+".xml")
			if os.Getenv("UPDATE_GOLDEN") != "" {
				if err := os.WriteFile(golden, []byte(on), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if want := read(t, golden); on != want {
				t.Fatalf("got\n%s\nwant\n%s", on, want)
			}
			if !change.Changed {
				t.Fatal("says that nothing changed")
			}
			again, change := enable(t, on)
			if again != on || change.Changed {
				t.Fatal("enabling it again changes it")
			}
			off, change := disable(t, on)
			if off != doc || !change.Changed {
				t.Fatalf("disabled it is\n%s", off)
			}
			again, change = disable(t, off)
			if again != off || change.Changed {
				t.Fatal("disabling it again changes it")
			}
		})
	}
}

func TestEnable_tells_where_the_state_of_the_vTPM_lies(t *testing.T) {
	docs := dumps(t)
	_, change := enable(t, docs["q35-emulator"])
	want := Change{
		Changed: true, UUID: mustUUID("11111111-2222-4333-8444-555555555555"), Model: "tpm-crb",
		EmulatorState: "/var/lib/libvirt/swtpm/11111111-2222-4333-8444-555555555555/tpm2",
		SidecarState:  "/var/lib/virt-attest/vtpm/11111111-2222-4333-8444-555555555555",
	}
	if change != want {
		t.Fatalf("%+v", change)
	}
	on, _ := enable(t, docs["q35-emulator"])
	if _, change = disable(t, on); change != want {
		t.Fatalf("disable says %+v", change)
	}
	if _, change = enable(t, docs["pc-no-tpm"]); change.EmulatorState != "" || change.Model != "tpm-crb" {
		t.Fatalf("a VM without a TPM: %+v", change)
	}
	if _, change = enable(t, docs["q35-tis"]); change.Model != "tpm-tis" {
		t.Fatalf("the model changed: %+v", change)
	}
	custom := strings.Replace(docs["q35-tis"], "<backend type='emulator' version='2.0'/>",
		"<backend type='emulator' version='2.0'><source type='dir' path='/srv/vtpm/bare'/></backend>", 1)
	if _, change = enable(t, custom); change.EmulatorState != "/srv/vtpm/bare" {
		t.Fatalf("a state directory of its own: %+v", change)
	}
}

func mustUUID(s string) attest.UUID {
	u, err := attest.ParseUUID(s)
	if err != nil {
		panic(err)
	}
	return u
}

func TestEnable_changes_nothing_but_TPM_channel_and_metadata(t *testing.T) {
	for name, doc := range dumps(t) {
		t.Run(name, func(t *testing.T) {
			on, _ := enable(t, doc)
			var before, after libvirtxml.Domain
			if err := errors.Join(before.Unmarshal(doc), after.Unmarshal(on)); err != nil {
				t.Fatal(err)
			}
			tpm := after.Devices.TPMs[0]
			if len(after.Devices.TPMs) != 1 || tpm.Backend.External == nil {
				t.Fatalf("TPM: %+v", after.Devices.TPMs)
			}
			if len(before.Devices.TPMs) > 0 && before.Devices.TPMs[0].Model != tpm.Model {
				t.Fatal("another model")
			}
			after.Devices.TPMs = before.Devices.TPMs
			after.Devices.Channels = slices.Clip(after.Devices.Channels[:len(before.Devices.Channels)])
			if before.Devices.Channels == nil {
				after.Devices.Channels = nil
			}
			after.Metadata = before.Metadata
			if !reflect.DeepEqual(before, after) {
				t.Fatal("something else changed")
			}
		})
	}
}

func TestEnable_keeps_what_no_library_knows(t *testing.T) {
	doc := `<?xml version="1.0"?>
<!-- by hand -->
<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0' xmlns:x="urn:x">
	<uuid>11111111-2222-4333-8444-555555555555</uuid>
	<x:future a="1"><![CDATA[<devices></devices>]]></x:future>
	<metadata><x:note>a &lt; b</x:note></metadata>
	<devices><brand-new/><tpm model='tpm-crb' x:y='z'><backend version="2.0" type='emulator' debug='3'/><alias name='ua-t'/></tpm></devices>
	<qemu:commandline><qemu:arg value='-x'/></qemu:commandline>
</domain>
`
	on, _ := enable(t, doc)
	for _, part := range []string{
		"<!-- by hand -->", "<![CDATA[<devices></devices>]]>", "<x:note>a &lt; b</x:note>", "<brand-new/>",
		"x:y='z'", "<alias name='ua-t'/>", "<qemu:arg value='-x'/>", `<backend version="2.0" type='emulator' debug='3'/>`,
	} {
		if !strings.Contains(on, part) {
			t.Errorf("%s is lost", part)
		}
	}
	off, _ := disable(t, on)
	if squeeze(off) != squeeze(doc) {
		t.Fatalf("disabled it is\n%s", off)
	}
}

// squeeze takes the white space between elements away.
func squeeze(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	return strings.NewReplacer("> <", "><").Replace(s)
}

func TestEnable_repairs_a_copied_and_a_half_definition(t *testing.T) {
	on, _ := enable(t, dumps(t)["q35-emulator"])
	const old, fresh = "11111111-2222-4333-8444-555555555555", "99999999-2222-4333-8444-555555555555"
	clone := strings.Replace(on, "<uuid>"+old, "<uuid>"+fresh, 1)
	d, err := Inspect(strings.NewReader(clone))
	if err != nil || d.Check() == nil {
		t.Fatal("a copied definition passes", err)
	}
	fixed, change := enable(t, clone)
	if want := strings.ReplaceAll(on, old, fresh); fixed != want || change.EmulatorState != "" {
		t.Fatalf("repaired it is\n%s", fixed)
	}
	start := strings.Index(on, "    <channel type='unix'>\n      <source")
	end := start + strings.Index(on[start:], "  </devices>")
	half := on[:start] + on[end:]
	if d, err := Inspect(strings.NewReader(half)); err != nil || !d.OptedIn || d.Check() == nil {
		t.Fatal("half a definition passes", err)
	}
	if fixed, _ := enable(t, half); fixed != on {
		t.Fatalf("repaired it is\n%s", fixed)
	}
}

func TestEnable_refuses_what_it_cannot_take_over_and_says_why(t *testing.T) {
	doc := dumps(t)["q35-tis"]
	tpm := func(s string) string {
		i, j := strings.Index(doc, "<tpm "), strings.Index(doc, "</tpm>")+len("</tpm>")
		return doc[:i] + s + doc[j:]
	}
	channel := func(s string) string { return strings.Replace(doc, "</devices>", s+"</devices>", 1) }
	for why, bad := range map[string]string{
		"passed through":         tpm(`<tpm model='tpm-tis'><backend type='passthrough'><device path='/dev/tpm0'/></backend></tpm>`),
		"version \"1.2\"":        tpm(`<tpm model='tpm-tis'><backend type='emulator' version='1.2'/></tpm>`),
		"version \"\"":           tpm(`<tpm model='tpm-tis'><backend type='emulator'/></tpm>`),
		"encrypted":              tpm(`<tpm model='tpm-crb'><backend type='emulator' version='2.0'><encryption secret='6dd3e4a5-1d76-44ce-961f-f119f5aad935'/></backend></tpm>`),
		"kept in a \"file\"":     tpm(`<tpm model='tpm-crb'><backend type='emulator' version='2.0'><source type='file' path='/x'/></backend></tpm>`),
		"another program":        tpm(`<tpm model='tpm-crb'><backend type='external'><source type='unix' mode='connect' path='/run/other.sock'/></backend></tpm>`),
		"2 TPMs":                 tpm(`<tpm model='tpm-spapr'><backend type='emulator'/></tpm><tpm model='spapr-tpm-proxy'><backend type='passthrough'/></tpm>`),
		"unknown backend":        tpm(`<tpm model='tpm-crb'><backend type='quantum'/></tpm>`),
		"did not make":           channel(`<channel type='unix'><target type='virtio' name='org.virt_attest.0'/></channel>`),
		"architecture \"s390x\"": strings.Replace(tpm(""), "arch='x86_64'", "arch='s390x'", 1),
	} {
		t.Run(why, func(t *testing.T) {
			out, _, err := Enable(bad)
			if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), why) || out != "" {
				t.Fatalf("%v", err)
			}
		})
	}
}

func TestDisable_gives_out_no_TPM_that_was_not_there(t *testing.T) {
	on, _ := enable(t, dumps(t)["q35-tis"])
	forged := strings.Replace(on, "<backend type='emulator' version='2.0'/>",
		"<backend type='passthrough'><device path='/dev/tpm0'/></backend>", 1)
	if forged == on {
		t.Fatal("nothing forged")
	}
	if _, _, err := Disable(forged); !errors.Is(err, ErrUnsupported) {
		t.Fatal(err)
	}
}

func TestEnabled_domains_are_valid_by_libvirts_schema(t *testing.T) {
	const schema = "/usr/share/libvirt/schemas/domain.rng"
	for name, doc := range dumps(t) {
		t.Run(name, func(t *testing.T) {
			on, _ := enable(t, doc)
			cmd := exec.Command("xmllint", "--noout", "--nonet", "--relaxng", schema, "-")
			cmd.Stdin = strings.NewReader(on)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v (xmllint and libvirt's schemas are needed: make deps)\n%s", err, out)
			}
		})
	}
}

// virsh speaks to libvirt's QEMU driver inside the virsh process, with its files below root.
func virsh(t *testing.T, root, input string, args ...string) string {
	t.Helper()
	cmd := exec.Command("virsh", append([]string{"-q", "-c", "qemu:///embed?root=" + root}, args...)...)
	cmd.Stdin = strings.NewReader(input)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("virsh %v: %v (libvirt-clients, libvirt-daemon and qemu-system-x86 are needed: make deps)\n%s", args, err, errs.String())
	}
	return strings.TrimRight(string(out), "\n") + "\n"
}

func TestLibvirt_takes_an_enabled_domain_and_gives_the_old_one_back_after_disable(t *testing.T) {
	root, err := os.MkdirTemp("", "dx") // short: libvirt makes sockets in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	for name, doc := range dumps(t) {
		t.Run(name, func(t *testing.T) {
			define := func(doc string) string {
				virsh(t, root, doc, "define", "--validate", "/dev/stdin")
				d, err := Inspect(strings.NewReader(doc))
				if err != nil {
					t.Fatal(err)
				}
				return virsh(t, root, "", "dumpxml", "--inactive", "--security-info", d.UUID.String())
			}
			before := define(doc)
			on, _ := enable(t, before)
			stored := define(on)
			d, err := Inspect(strings.NewReader(stored))
			if err != nil || !d.OptedIn || d.Check() != nil {
				t.Fatalf("libvirt made of it (%v, %v)\n%s", err, d.Check(), stored)
			}
			if _, change := enable(t, stored); change.Changed {
				t.Fatal("enabling it again changes it")
			}
			off, _ := disable(t, stored)
			if after := define(off); after != before {
				t.Fatalf("before\n%s\nafter\n%s", before, after)
			}
		})
	}
}
