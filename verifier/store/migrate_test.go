package store

import (
	"io/fs"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/pressly/goose/v3"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

// oldDatabase makes a file as the release before the service left it.
func oldDatabase(t *testing.T) database {
	t.Helper()
	d := newSQLite(t)
	db, err := openFile(d.Path, "immediate", "FULL", 1)
	must(t, err)
	defer func() { must(t, db.Close()) }()
	files, err := fs.Sub(migrations, "migrations")
	must(t, err)
	p, err := goose.NewProvider(goose.DialectSQLite3, db, files, goose.WithDisableGlobalRegistry(true))
	must(t, err)
	_, err = p.UpTo(t.Context(), 1)
	must(t, err)
	rows, err := os.ReadFile("testdata/schema1.sql")
	must(t, err)
	_, err = db.ExecContext(t.Context(), string(rows))
	must(t, err)
	return d
}

func TestOpen_of_an_earlier_releases_database_keeps_all_of_it(t *testing.T) {
	d := oldDatabase(t)
	s := d.open(t)
	at := time.UnixMilli(1777636800000).UTC()
	vms, err := s.VMPage(t.Context(), api.MachineFilter{}, "", api.Page{}, at)
	must(t, err)
	var got []string
	for _, v := range vms.Items {
		got = append(got, v.Name+" "+string(v.State))
	}
	if !slices.Equal(got, []string{"db UNTRUSTED", "new PENDING", "web TRUSTED"}) {
		t.Errorf("%v", got)
	}
	web := vms.Items[2]
	if r := web.Result; r.Report != "02" || r.Entries != 5 || !r.Time.Equal(at) || !r.Expires.Equal(at.Add(10*time.Minute)) || web.HostName != "alpha" {
		t.Errorf("%+v", r)
	}
	if r := vms.Items[0].Result; len(r.Reasons) != 1 || r.Reasons[0].Path != "/bin/x" {
		t.Errorf("%+v", r)
	}
	hosts, err := s.HostPage(t.Context(), api.MachineFilter{}, "", api.Page{}, at)
	must(t, err)
	if len(hosts.Items) != 2 || hosts.Items[0].State != appraise.Trusted || hosts.Items[0].Host.How != ByOperator || hosts.Items[0].VMs != 3 || hosts.Items[1].State != appraise.Pending {
		t.Errorf("%+v", hosts.Items)
	}
	v, data, err := s.Active(t.Context(), api.DocRIM, "debian")
	must(t, err)
	if v.Version != 1 || v.SHA256 != "abcd" || string(data) != "data" {
		t.Errorf("%+v %q", v, data)
	}
	set, err := s.Settings(t.Context(), vm1.String())
	must(t, err)
	if set.Policy != DefaultVMPolicy || !slices.Equal(set.RIMs, []string{"debian"}) {
		t.Errorf("%+v", set)
	}
	m, err := s.Machine(t.Context(), vm1.String())
	must(t, err)
	if m.Revision != 3 || m.Entries != 5 {
		t.Errorf("%+v", m)
	}
	oldReports(t, s)
	n, err := s.Lapsed(t.Context(), at.Add(time.Hour), 100)
	if err != nil || n != 2 {
		t.Errorf("%d verdicts have lapsed, %v", n, err)
	}
	must(t, s.Close())
	must(t, d.open(t).Ready(t.Context()))
}

func oldReports(t *testing.T, s *Store) {
	t.Helper()
	id, err := s.NewestEvidence(t.Context(), vm1.String())
	if err != nil || id != "02" {
		t.Errorf("newest evidence %q, %v", id, err)
	}
	l, err := s.Reports(t.Context(), vm2.String(), api.Page{})
	must(t, err)
	if len(l.Items) != 1 || l.Items[0].State != appraise.Untrusted || l.Items[0].Scheme != attest.SchemeSEPA || !l.Items[0].Evidence {
		t.Errorf("%+v", l)
	}
	l, err = s.Reports(t.Context(), vm1.String(), api.Page{Limit: 1})
	must(t, err)
	if len(l.Items) != 1 || l.Total != 2 || l.Items[0].ID != "02" {
		t.Fatalf("%+v", l)
	}
	l, err = s.Reports(t.Context(), vm1.String(), api.Page{Limit: 1, Cursor: l.Next})
	must(t, err)
	if len(l.Items) != 1 || l.Items[0].ID != "01" || l.Items[0].Evidence || l.Next != "" {
		t.Errorf("%+v", l)
	}
	if ev, err := s.Evidence(t.Context(), "01"); err == nil {
		t.Errorf("%+v", ev)
	}
}
