package cli

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"time"

	"virt-attest/cmd/virt-attest/internal/hostcheck"
	"virt-attest/internal/version"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

// Where doctor starts to complain.
const (
	clockWarn = 2 * time.Second
	clockBad  = 30 * time.Second
	replicaBy = 2 * time.Minute // since a replica was last seen
)

// certificates looks at those that are shown and trusted, and at the Verifier's own.
func (d *doctor) certificates(ctx context.Context) {
	if !d.conf.overTLS() {
		return
	}
	if list, err := readCertificates(d.conf.Verifier.CA); err == nil {
		d.certificate("the CA's certificate", list[0], "Have the CA renewed, and its certificate given to all.")
	}
	if d.conf.tokenFile() == "" {
		if c, err := readPair(d.conf.Verifier.Cert, d.conf.Verifier.Key); err == nil {
			d.certificate("your certificate", c, "Have the CA make a new one: "+d.conf.Verifier.Cert)
		}
	}
	if d.client == nil {
		return
	}
	if c, err := d.client.Certificate(ctx); err == nil {
		d.certificate("the Verifier's certificate", c, "Renew it where the Verifier runs; it takes the new file without a restart.")
	}
}

func (d *doctor) certificate(check string, c *x509.Certificate, do string) {
	d.note(hostcheck.Certificate(check, c, do))
}

// reach asks the Verifier who it is, and what it knows.
func (d *doctor) reach(ctx context.Context) {
	const check = "the way to the Verifier"
	if d.client == nil {
		d.report(check, skip, "", "there is no usable configuration")
		return
	}
	v, err := d.client.Version(ctx)
	if err == nil {
		d.asked = time.Now()
		d.overview, err = d.client.Overview(ctx)
		d.answered = time.Now()
	}
	var p *api.Problem
	switch {
	case err == nil:
		d.report(check, pass, "", "%s", d.conf.Verifier.URL)
	case errors.As(err, &p) && (p.Status == http.StatusForbidden || p.Status == http.StatusUnauthorized):
		d.report(check, bad, "Use the unix socket as root or a member of the operators' group, a certificate that the Verifier's configuration names, or a token.", "%s", said(p))
		return
	case v.Version == "":
		d.report(check, bad, "Start virt-attest-verifierd, and see that "+d.conf.Verifier.URL+" is its address (-V or "+d.configName()+").", "%v", err)
		return
	default:
		d.report(check, bad, "Look at its journal: journalctl -u virt-attest-verifierd", "%v", err)
	}
	if v.Version == version.Version {
		d.report("versions", pass, "", "%s", v.Version)
	} else {
		d.report("versions", warn, "Bring both to the same version; the Verifier first.", "this is %s, the Verifier %s", version.Version, v.Version)
	}
}

func (d *doctor) database(ctx context.Context) {
	if d.overview == nil {
		return
	}
	if err := d.client.Ready(ctx); err != nil {
		d.report("the Verifier's database", bad, "Look at the database, and at the Verifier's journal.", "%v", err)
		return
	}
	d.report("the Verifier's database", pass, "", "")
}

func (d *doctor) clocks() {
	if d.overview == nil {
		return
	}
	off := max(d.asked.Sub(d.overview.Time), d.overview.Time.Sub(d.answered), 0).Round(100 * time.Millisecond) // a slow answer is no wrong clock
	const do = "Let chrony or systemd-timesyncd run on both; challenges and verdicts expire by the clock."
	switch {
	case off > clockBad:
		d.report("the clocks", bad, do, "they are %v apart", off)
	case off > clockWarn:
		d.report("the clocks", warn, do, "they are %v apart", off)
	default:
		d.report("the clocks", pass, "", "")
	}
}

func total(c api.Counts) (n int) {
	for _, k := range c {
		n += k
	}
	return n
}

func (d *doctor) hosts() {
	o := d.overview
	if o == nil {
		return
	}
	all := total(o.Hosts)
	switch {
	case all == 0:
		d.report("hosts", warn, "Start virt-attest-hostd on a host.", "the Verifier knows none")
		return
	case o.Online < all:
		d.report("hosts online", warn, "virt-attest host list; on those that are away: systemctl status virt-attest-hostd", "%d of %d", o.Online, all)
	default:
		d.report("hosts online", pass, "", "%d", all)
	}
	if o.Enrolling > 0 {
		d.report("hosts approved", warn, "Compare what virt-attest-hostd -identity shows there, then: virt-attest host approve HOST --ek-sha256 HEX", "%d wait for an operator", o.Enrolling)
	} else {
		d.report("hosts approved", pass, "", "")
	}
	d.state("hosts", o.Hosts, appraise.Untrusted, bad, "virt-attest host list --untrusted; virt-attest why HOST --host")
	d.state("hosts", o.Hosts, appraise.Rollback, bad, "virt-attest host list --untrusted; virt-attest why HOST --host")
	d.state("hosts", o.Hosts, appraise.Unconfigured, warn, "virt-attest rim create NAME --from-host HOST; virt-attest rim assign NAME HOST --host")
}

// state reports how many machines are in a state that they should not be in.
func (d *doctor) state(what string, c api.Counts, s appraise.State, worst hostcheck.Result, do string) {
	check := what + " that are " + string(s)
	if n := c[s]; n > 0 {
		d.report(check, worst, do, "%d of %d", n, total(c))
		return
	}
	d.report(check, pass, "", "")
}

func (d *doctor) machines() {
	if d.overview == nil {
		return
	}
	vms := d.overview.VMs
	for _, s := range []appraise.State{appraise.Untrusted, appraise.Rollback} {
		d.state("VMs", vms, s, bad, fmt.Sprintf("virt-attest list --state %s; virt-attest why DOMAIN", s))
	}
	d.state("VMs", vms, appraise.Error, bad, "journalctl -u virt-attest-verifierd   # where the Verifier runs")
	d.state("VMs", vms, appraise.Unconfigured, warn, "virt-attest rim create NAME --from-domain DOMAIN; virt-attest rim assign NAME DOMAIN")
	d.state("VMs", vms, appraise.Stale, warn, "virt-attest attest --all; and see that policies have an interval shorter than their lifetime")
	d.state("VMs", vms, appraise.Unreachable, warn, "virt-attest list --state UNREACHABLE; virt-attest why DOMAIN")
}

func (d *doctor) alerts() {
	if d.overview == nil {
		return
	}
	if n := d.overview.Alerts; n > 0 {
		d.report("alerts", warn, "virt-attest alert list", "%d open", n)
		return
	}
	d.report("alerts", pass, "", "")
}

func (d *doctor) replicas() {
	if d.overview == nil {
		return
	}
	var lost, versions []string
	for _, r := range d.overview.Replicas {
		if d.overview.Time.Sub(r.LastSeen) > replicaBy {
			lost = append(lost, r.Host)
		}
		if r.Version != d.overview.Replicas[0].Version {
			versions = append(versions, r.Host+" has "+r.Version)
		}
	}
	switch {
	case len(lost) > 0:
		d.report("replicas of the Verifier", warn, "Start virt-attest-verifierd there, or leave it: its entry goes by itself.", "not seen lately: %s", some(lost))
	case len(versions) > 0:
		d.report("replicas of the Verifier", warn, "Bring all replicas to the same version.", "%s", some(versions))
	default:
		d.report("replicas of the Verifier", pass, "", "%d", len(d.overview.Replicas))
	}
}
