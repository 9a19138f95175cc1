package domainxml

import (
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"
)

const vmID = "11111111-2222-4333-8444-555555555555"

// device gives a domain's XML with what is put between <devices> and before it.
func domain(before, devices string) string {
	return "<domain type='kvm'><name>x</name><uuid>" + vmID + "</uuid>" + before + "<devices>" + devices + "</devices></domain>"
}

func tpmAt(path string) string {
	return "<tpm model='tpm-crb'><backend type='external'><source type='unix' mode='connect' path='" + path + "'/></backend></tpm>"
}

func channelAt(path string) string {
	return "<channel type='unix'><source mode='connect' path='" + path + "'/><target type='virtio' name='org.virt_attest.0'/></channel>"
}

const (
	ownTPM   = "/run/virt-attest/" + vmID + "/tpm.sock"
	ownAgent = "/run/virt-attest/" + vmID + "/agent.sock"
	foreign  = "/run/virt-attest/99999999-2222-4333-8444-555555555555/"
)

func TestInspect_finds_who_takes_part(t *testing.T) {
	for name, c := range map[string]struct {
		doc   string
		in    bool
		wrong string // part of Check's error
	}{
		"both devices":          {domain("", tpmAt(ownTPM)+channelAt(ownAgent)), true, ""},
		"no device":             {domain("", ""), false, ""},
		"a live domain":         {strings.Replace(domain("", tpmAt(ownTPM)+channelAt(ownAgent)), "type='kvm'", "type='kvm' id='7'", 1), true, ""},
		"another external TPM":  {domain("", tpmAt("/run/other/tpm.sock")), false, ""},
		"an emulator":           {domain("", "<tpm><backend type='emulator'><source path='"+ownTPM+"'/></backend></tpm>"), false, ""},
		"only the TPM":          {domain("", tpmAt(ownTPM)), true, "not the channel org.virt_attest.0"},
		"only the channel":      {domain("", channelAt(ownAgent)), true, "not the TPM"},
		"another VM's TPM":      {domain("", tpmAt(foreign+"tpm.sock")+channelAt(ownAgent)), true, "not its own socket " + ownTPM},
		"another VM's channel":  {domain("", tpmAt(ownTPM)+channelAt(foreign+"agent.sock")), true, "not its own socket " + ownAgent},
		"sockets exchanged":     {domain("", tpmAt(ownAgent)+channelAt(ownTPM)), true, "not its own"},
		"a detour":              {domain("", tpmAt("/run//virt-attest/x/../"+vmID+"/tpm.sock")+channelAt(ownAgent)), true, "not its own"},
		"the old name of /run":  {domain("", tpmAt("/var"+ownTPM)+channelAt(ownAgent)), true, "not its own"},
		"two TPMs":              {domain("", tpmAt(ownTPM)+tpmAt(ownTPM)+channelAt(ownAgent)), true, "2 TPMs"},
		"only in metadata":      {domain("<metadata><devices>"+tpmAt(ownTPM)+"</devices></metadata>", ""), false, ""},
		"in a description":      {domain("<description>&lt;tpm&gt;"+ownTPM+"</description>", ""), false, ""},
		"in another namespace":  {domain("", strings.ReplaceAll(tpmAt(ownTPM), "<tpm ", "<tpm xmlns='urn:x' ")), false, ""},
		"in CDATA":              {domain("", "<![CDATA["+tpmAt(ownTPM)+"]]>"), false, ""},
		"a comment":             {domain("", "<!-- "+tpmAt(ownTPM)+" -->"), false, ""},
		"path with a reference": {domain("", tpmAt("&#x2f;run/virt-attest/"+vmID+"/tpm.sock")+channelAt(ownAgent)), true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := Inspect(strings.NewReader(c.doc))
			if err != nil || d.OptedIn != c.in || d.UUID.String() != vmID {
				t.Fatalf("%+v, %v", d, err)
			}
			if !c.in {
				return
			}
			if err := d.Check(); (err == nil) != (c.wrong == "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
				t.Fatalf("Check: %v", err)
			}
		})
	}
}

// F2: whatever stands there, the answer is an error in bounded time and memory.
func TestInspect_refuses_hostile_documents(t *testing.T) {
	bomb := `<!DOCTYPE domain [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;">]>` +
		domain("<description>&c;&c;&c;</description>", "")
	for name, doc := range map[string]string{
		"nothing":                "",
		"an entity bomb":         bomb,
		"an external entity":     `<!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/passwd">]>` + domain("<description>&x;</description>", ""),
		"an unknown entity":      domain("<name>&c;</name>", ""),
		"a declaration inside":   domain("<!DOCTYPE x []>", ""),
		"another root":           "<network/>",
		"a root in a namespace":  "<domain xmlns='urn:x'/>",
		"no UUID":                "<domain><name>x</name></domain>",
		"two UUIDs":              strings.Replace(domain("", ""), "<devices>", "<uuid>"+vmID+"</uuid><devices>", 1),
		"a UUID with a path":     strings.Replace(domain("", ""), vmID, "../../etc/passwd", 1),
		"a UUID and a line feed": strings.Replace(domain("", ""), vmID, vmID[:30]+"\n", 1),
		"an endless UUID":        strings.Replace(domain("", ""), vmID, strings.Repeat("1", 1<<20), 1),
		"the end missing":        strings.TrimSuffix(domain("", tpmAt(ownTPM)), "</domain>"),
		"tags crossed":           "<domain><a><b></a></b></domain>",
		"not UTF-8":              domain("<name>\xff\xfe</name>", ""),
		"another encoding":       "<?xml version='1.0' encoding='utf-16'?>" + domain("", ""),
		"too large":              domain("<description>"+strings.Repeat("x", MaxXML)+"</description>", ""),
		"too many TPMs":          domain("", strings.Repeat("<tpm/>", maxElements)),
		"an endless attribute":   "<domain x='" + strings.Repeat("y", MaxXML),
	} {
		t.Run(name, func(t *testing.T) {
			if d, err := Inspect(strings.NewReader(doc)); !errors.Is(err, ErrXML) || d != (Domain{}) {
				t.Fatalf("%+v, %v", d, err)
			}
		})
	}
}

func TestInspect_of_a_large_document_remembers_only_what_matters(t *testing.T) { // F2: 10 MB of XML
	deep := strings.Repeat("<a>", 50_000) + strings.Repeat("</a>", 50_000)
	wide := strings.Repeat("<disk type='file'><source file='"+strings.Repeat("/x", 200)+"'/></disk>", 20_000)
	doc := domain("<metadata>"+deep+"</metadata>", wide+tpmAt(ownTPM)+channelAt(ownAgent))
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	start := time.Now()
	d, err := Inspect(strings.NewReader(doc))
	took := time.Since(start)
	runtime.GC()
	runtime.ReadMemStats(&after)
	if err != nil || d.Check() != nil {
		t.Fatal(err, d.Check())
	}
	if took > 10*time.Second {
		t.Fatalf("%d bytes took %v", len(doc), took)
	}
	if kept := int64(after.HeapAlloc) - int64(before.HeapAlloc); kept > 1<<20 {
		t.Fatalf("%d bytes are still held", kept)
	}
}

func TestInspect_reads_no_further_than_the_domain(t *testing.T) {
	r, w := io.Pipe()
	go func() { _, _ = io.WriteString(w, domain("", "")+"\n") }() // and never closes
	done := make(chan error, 1)
	go func() {
		_, err := Inspect(r)
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("waits for more than the domain")
	}
}

// FuzzEnable: what Enable makes of any text that it takes is complete, and Enable and Disable undo each other.
func FuzzEnable(f *testing.F) {
	f.Add(domain("", ""))
	f.Add(domain("<metadata/>", tpmAt(ownTPM)))
	f.Add(domain("<metadata><x:a xmlns:x='urn:x'/></metadata>", "\n  <tpm model='tpm-tis'>\n    <backend type='emulator' version='2.0'/>\n  </tpm>\n"))
	f.Add(domain("<metadata><o:original xmlns:o='"+Namespace+"'><backend type='emulator'/></o:original></metadata>", tpmAt(foreign+"tpm.sock")))
	f.Add("<domain><uuid>" + vmID + "</uuid><devices/></domain>")
	f.Fuzz(func(t *testing.T, doc string) {
		if len(doc) > 64<<10 {
			return
		}
		on, change, err := Enable(doc)
		if err != nil {
			if on != "" || change != (Change{}) {
				t.Fatal("an error with a result")
			}
			return
		}
		d, err := Inspect(strings.NewReader(on))
		if err != nil || !d.OptedIn || d.Check() != nil {
			t.Fatalf("%v, %v:\n%s", err, d.Check(), on)
		}
		if again, change, err := Enable(on); err != nil || change.Changed || again != on {
			t.Fatalf("not idempotent: %v\n%s", err, again)
		}
		off, _, err := Disable(on)
		if errors.Is(err, ErrUnsupported) {
			return // forged metadata
		}
		if err != nil {
			t.Fatal(err)
		}
		if d, err := Inspect(strings.NewReader(off)); err != nil || d.OptedIn {
			t.Fatalf("still opted in: %v\n%s", err, off)
		}
	})
}
