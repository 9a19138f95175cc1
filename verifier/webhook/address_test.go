package webhook

import (
	"net/netip"
	"testing"
)

func Test_addresses_of_this_machine_its_link_and_metadata_services_are_refused_in_every_form(t *testing.T) {
	for _, s := range []string{
		"127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "169.254.169.254", "224.0.0.1", "255.255.255.255", "240.0.0.1", "100.100.100.200",
		"::1", "::", "fe80::1", "fe80::1%eth0", "ff02::1", "fd00:ec2::254",
		"::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2002:a9fe:a9fe::1",
	} {
		if !local(netip.MustParseAddr(s)) {
			t.Errorf("%s is allowed", s)
		}
		c := Config{}
		if err := c.control("tcp", netip.AddrPortFrom(netip.MustParseAddr(s), 443).String(), nil); err == nil {
			t.Errorf("a connection to %s is allowed", s)
		}
	}
	for _, s := range []string{"192.0.2.1", "10.0.0.1", "192.168.1.1", "100.64.0.1", "2001:db8::1", "fd00::1", "64:ff9b::c000:201", "2002:c000:201::1", "::ffff:10.0.0.1"} {
		if local(netip.MustParseAddr(s)) {
			t.Errorf("%s is refused", s)
		}
	}
	if (&Config{}).control("tcp", "nonsense", nil) == nil {
		t.Error("an address that cannot be read is allowed")
	}
}

func TestCheckURL_refuses_what_cannot_be_an_endpoint(t *testing.T) {
	plain := Config{InsecureHTTP: true}
	for url, ok := range map[string]bool{
		"https://hooks.example/x?y=z": true, "https://10.0.0.1:8443/": true, "https://[2001:db8::1]/": true,
		"http://hooks.example/": false, "ftp://hooks.example/": false, "https://": false, "hooks.example": false, "https:hooks.example": false,
		"https://user:pw@hooks.example/": false, "https://hooks.example/#x": false, "https://127.0.0.1/": false, "https://[::1]/": false,
		"https://[fe80::1%25eth0]/": false, "https://hooks.example/\n": false, "": false, "file:///etc/passwd": false, "unix:///run/x": false,
	} {
		if err := (&Config{}).CheckURL(url); (err == nil) != ok {
			t.Errorf("%q: %v", url, err)
		}
	}
	if err := plain.CheckURL("http://hooks.example/"); err != nil {
		t.Error(err)
	}
}
