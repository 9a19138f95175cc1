package domainxml

import (
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestOneColon_changes_names_with_two_and_nothing_else(t *testing.T) {
	for in, want := range map[string]string{
		`<a:a:b xmlns:a='u:v:w' c:d:e="1:2:3">x:y:z</a:a:b>`:                        `<a:a_b xmlns:a='u:v:w' c:d_e="1:2:3">x:y:z</a:a_b>`,
		`<!-- it's a:b:c <x:y:z --><mac address='52:54:00:11:22:33'/>`:              `<!-- it's a:b:c <x:y:z --><mac address='52:54:00:11:22:33'/>`,
		`<?pi isn't a:b:c?><a><![CDATA[ <it's:a:b ]]></a><b c='d>:e:f' g:h:i='"'/>`: `<?pi isn't a:b:c?><a><![CDATA[ <it's:a:b ]]></a><b c='d>:e:f' g:h_i='"'/>`,
		`<qemu:commandline><qemu:arg value='a:b:c'/></qemu:commandline>`:            `<qemu:commandline><qemu:arg value='a:b:c'/></qemu:commandline>`,
	} {
		for _, r := range []io.Reader{strings.NewReader(in), iotest.OneByteReader(strings.NewReader(in))} {
			if got, err := io.ReadAll(OneColon(r)); err != nil || string(got) != want {
				t.Errorf("%s\n got %s\nwant %s", in, got, want)
			}
		}
	}
}

func TestInspect_sees_the_VM_whatever_somebody_wrote_into_its_metadata(t *testing.T) {
	xml := domain("<metadata><attest:attest:request xmlns:attest='https://virt-attest.org/xmlns/attest/1' scheme='sepa'/></metadata>", tpmAt(ownTPM))
	d, err := Inspect(strings.NewReader(xml))
	if err != nil || !d.OptedIn {
		t.Errorf("%+v, %v", d, err)
	}
}
