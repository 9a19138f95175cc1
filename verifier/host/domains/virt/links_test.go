package virt

import (
	"strings"
	"testing"
)

const twoCards = `<domain type='qemu' id='3'><name>vm</name><devices>
<interface type='network'><mac address='52:54:00:AA:00:01'/><source network='default' portid='x&amp;y'/><target dev='vnet0'/><model type='virtio'/><link state='up'/><alias name='net0'/><address type='pci' slot='0x02'/></interface>
<interface type="user"><mac address="52:54:00:aa:00:02"/><link state='down'></link></interface>
<interface type='ethernet'><mac address='52:54:00:aa:00:03'/></interface>
</devices></domain>`

func TestInterfaces_change_in_their_link_and_in_nothing_else(t *testing.T) {
	list, err := interfaces(twoCards)
	if err != nil || len(list) != 3 {
		t.Fatal(list, err)
	}
	for i, up := range []bool{true, false, true} {
		if list[i].Up != up {
			t.Errorf("%d: %+v", i, list[i])
		}
	}
	got := list[0].with(false)
	if want := `<interface type='network'><mac address='52:54:00:AA:00:01'/><source network='default' portid='x&amp;y'/><target dev='vnet0'/><model type='virtio'/><alias name='net0'/><address type='pci' slot='0x02'/><link state='down'/></interface>`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := list[1].with(true); strings.Count(got, "<link") != 1 || !strings.Contains(got, "state='up'") {
		t.Error(got)
	}
	if !list[0].of([]string{"52:54:00:aa:00:01"}) || list[0].of([]string{"52:54:00:aa:00:02"}) {
		t.Error("an interface is known by its MAC address")
	}
}

func TestInterfaces_refuses_what_is_no_domain(t *testing.T) {
	for _, s := range []string{"", "<domain", strings.Repeat(" ", maxDomain+1), "<domain><devices>" + strings.Repeat("<interface/>", maxInterfaces+1) + "</devices></domain>"} {
		if list, err := interfaces(s); err == nil {
			t.Errorf("%.20q: %v", s, list)
		}
	}
}
