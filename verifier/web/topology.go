package web

import (
	"html/template"
	"math"
	"net/url"
	"strings"

	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

// topologyData is which VM runs on which host, and whether that is proven.
type topologyData struct {
	Hosts  []hostDrawing
	More   int // hosts that are not drawn
	VMs    int
	Proven int
}

// hostDrawing is one host's picture.
type hostDrawing struct {
	api.TopologyHost
	SVG    template.HTML
	Hidden int // VMs drawn as one box
}

func (c *call) topology() error {
	t, err := c.svc.Topology(c.r.Context(), c.who)
	if err != nil {
		return err
	}
	d := topologyData{More: max(0, len(t.Hosts)-maxDrawn)}
	for i, h := range t.Hosts {
		for _, v := range h.VMs {
			d.VMs++
			if v.Link {
				d.Proven++
			}
		}
		if i < maxDrawn {
			d.Hosts = append(d.Hosts, drawHost(h))
		}
	}
	return c.show("topology", "topology", "Topology", d)
}

// Geometry of a host's picture, in its own units.
const (
	vmWidth, vmHeight = 200, 34
	vmGapX, vmGapY    = 12, 20
	vmsLeft           = 250
	vmColumns         = 4
	hostWidth         = 206
	rail              = 10 // above a row of VMs
)

// pick chooses the VMs that are drawn one by one: all of a small host, else those that are not all right.
func pick(vms []api.TopologyVM) (drawn []api.TopologyVM, rest api.Counts) {
	if len(vms) <= maxLines {
		return vms, nil
	}
	rest = api.Counts{}
	for _, v := range vms {
		if (v.State != appraise.Trusted || !v.Link) && len(drawn) < maxLines/2 {
			drawn = append(drawn, v)
		} else {
			rest[v.State]++
		}
	}
	return drawn, rest
}

// drawHost draws a host at the left and rows of its VMs at the right. A rail runs above each row, and a short line from it
// to each VM is the link: unbroken where it is proven.
func drawHost(h api.TopologyHost) hostDrawing {
	drawn, rest := pick(h.VMs)
	boxes := len(drawn)
	if rest != nil {
		boxes++
	}
	lines := max(1, (boxes+vmColumns-1)/vmColumns)
	tall := max(lines*(vmHeight+vmGapY)+8, 62)
	wide := vmsLeft + vmColumns*(vmWidth+vmGapX)
	var p picture
	p.add(`<svg class="topo" viewBox="0 0 %d %d" width="%d" height="%d" role="group" aria-label="host %s and its VMs">`, wide, tall, wide, tall, plain(h.Name, maxName))
	p.rails(boxes)
	p.add(`<a href="/hosts/%s" class="node s-%s"><rect x="2" y="4" width="%d" height="48" rx="6"/>`, url.PathEscape(h.ID), strings.ToLower(string(h.State)), hostWidth)
	p.add(`<use href="#%s" x="12" y="11" width="18" height="18"/><text x="36" y="25" class="nm">%s</text>`, icon(h.State), clip(plain(h.Name, maxName), 20))
	online := "connected"
	if !h.Online {
		online = "not connected"
	}
	p.add(`<text x="12" y="44" class="st">%s, %s, %d VMs</text><title>%s</title></a>`, h.State, online, len(h.VMs), plain(h.Name, maxName))
	for i, v := range drawn {
		x, y := place(i)
		p.link(x, y, v.Link)
		p.vm(x, y, v)
	}
	if rest != nil {
		x, y := place(len(drawn))
		p.link(x, y, true)
		p.others(x, y, h.ID, rest)
	}
	p.add(`</svg>`)
	hidden := 0
	for _, n := range rest {
		hidden += n
	}
	return hostDrawing{h, p.html(), hidden}
}

func place(i int) (x, y int) {
	return vmsLeft + (i%vmColumns)*(vmWidth+vmGapX), 4 + rail + 6 + (i/vmColumns)*(vmHeight+vmGapY)
}

// rails draws the lines from the host along its rows of boxes.
func (p *picture) rails(boxes int) {
	for first := 0; first < boxes; first += vmColumns {
		_, y := place(first)
		x, _ := place(min(first+vmColumns, boxes) - 1)
		p.add(`<path class="rail" fill="none" d="M%d 14H%d V%d H%d"/>`, hostWidth+2, hostWidth+20, y-rail, x+vmWidth/2)
	}
}

// link draws the line to the VM at x, y. One that is not proven is dashed, and has a cross on it.
func (p *picture) link(x, y int, ok bool) {
	x += vmWidth / 2
	if ok {
		p.add(`<path class="link ok" d="M%d %dV%d"/>`, x, y-rail, y)
		return
	}
	p.add(`<path class="link broken" d="M%d %dV%d"/><path class="cross" d="M%d %dl8 8m0-8l-8 8"><title>the link between VM and host is not proven</title></path>`, x, y-rail, y, x-4, y-rail+1)
}

func (p *picture) vm(x, y int, v api.TopologyVM) {
	p.add(`<a href="/vms/%s" class="node s-%s"><rect x="%d" y="%d" width="%d" height="%d" rx="5"/>`, v.UUID.String(), strings.ToLower(string(v.State)), x, y, vmWidth, vmHeight)
	p.add(`<use href="#%s" x="%d" y="%d" width="16" height="16"/><text x="%d" y="%d" class="nm">%s</text>`, icon(v.State), x+7, y+9, x+28, y+14, clip(plain(v.Name, maxName), 20))
	said := string(v.State)
	if !v.Link {
		said += ", link not proven"
	}
	p.add(`<text x="%d" y="%d" class="st">%s</text><title>%s: %s</title></a>`, x+28, y+27, said, plain(v.Name, maxName), plain(v.Reason, maxName))
}

// others draws one box for the VMs that are not drawn.
func (p *picture) others(x, y int, host string, rest api.Counts) {
	n := total(rest)
	p.add(`<a href="/vms?host=%s" class="node more"><rect x="%d" y="%d" width="%d" height="%d" rx="5"/><text x="%d" y="%d" class="nm">%s VMs more</text>`,
		url.QueryEscape(host), x, y, vmWidth, vmHeight, x+10, y+14, count(n))
	at, left := float64(x+10), float64(vmWidth-20)
	for _, s := range states() {
		if rest[s] > 0 {
			w := math.Max(left*float64(rest[s])/float64(n), 2)
			p.add(`<rect class="seg s-%s" x="%.1f" y="%d" width="%.1f" height="8"><title>%s: %d</title></rect>`, strings.ToLower(string(s)), at, y+20, w, s, rest[s])
			at += w
		}
	}
	p.add(`</a>`)
}

// clip cuts a label to a number of characters.
func clip(s string, limit int) string {
	r := []rune(s)
	if len(r) <= limit {
		return s
	}
	return string(r[:limit-1]) + "…"
}
