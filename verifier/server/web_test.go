package server_test

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"virt-attest/verifier/api"
	"virt-attest/verifier/api/apitest"
	"virt-attest/verifier/server"
)

// page is a web page that says who it is for.
func page() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, ok := api.CallerOf(r.Context())
		_, _ = fmt.Fprintf(w, "%s %v %s", who.Name, ok, r.URL)
		_, _ = io.Copy(io.Discard, r.Body)
	})
}

// post makes a request that a form makes.
func (s *served) post(path string, form url.Values, headers map[string]string) *http.Request {
	r := s.request("POST "+path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for k, v := range headers {
		r.Header.Set(k, v)
	}
	return r
}

// browser logs in and gives the session cookie.
func (s *served) browser(role api.Role) string {
	s.t.Helper()
	got := s.send(s.post("/login", url.Values{"token": {apitest.LoginSecret(role)}, "next": {"/vms"}}, map[string]string{"Origin": s.base}), "")
	cookie := got.header.Get("Set-Cookie")
	if got.status != http.StatusSeeOther || got.header.Get("Location") != "/vms" || cookie == "" {
		s.t.Fatalf("login: %d %v", got.status, got.header)
	}
	for _, want := range []string{"HttpOnly", "SameSite=Strict", "Path=/"} {
		if !strings.Contains(cookie, want) {
			s.t.Errorf("%s without %s", cookie, want)
		}
	}
	return strings.SplitN(cookie, ";", 2)[0]
}

func TestLogin_gives_a_session_for_a_token_once(t *testing.T) {
	s := serve(t, server.Options{Web: page()})
	cookie := s.browser(api.RoleOperator)
	r := s.request("GET /vms", nil)
	r.Header.Set("Cookie", cookie)
	if got := s.send(r, ""); got.body != "login:operator true /vms" {
		t.Errorf("%q", got.body)
	}
	if got := s.send(s.request("GET /vms", nil), ""); got.body != " false /vms" {
		t.Errorf("without a cookie: %q", got.body)
	}
	r = s.request("GET /api/v1/vms", nil)
	r.Header.Set("Cookie", cookie)
	if got := s.send(r, ""); got.status != http.StatusOK {
		t.Errorf("the interface by the cookie: %d", got.status)
	}
	if got := s.send(s.post("/login", url.Values{"token": {apitest.LoginSecret(api.RoleOperator)}}, nil), ""); got.header.Get("Location") != "/login?error=refused" || got.header.Get("Set-Cookie") != "" {
		t.Errorf("the token again: %v", got.header)
	}
	if got := s.send(s.post("/logout", nil, map[string]string{"Cookie": cookie}), ""); got.status != http.StatusSeeOther {
		t.Errorf("logout: %d", got.status)
	}
	r = s.request("GET /api/v1/vms", nil)
	r.Header.Set("Cookie", cookie)
	if got := s.send(r, ""); got.status != http.StatusUnauthorized {
		t.Errorf("after logging out: %d", got.status)
	}
}

func TestLogin_goes_on_within_this_site_only(t *testing.T) {
	for next, want := range map[string]string{"/vms?state=STALE": "/vms?state=STALE", "": "/", "https://evil.example": "/", "//evil.example": "/", `/\evil.example`: "/", "javascript:x": "/", "/a\r\nb": "/"} {
		if got := server.Local(next); got != want {
			t.Errorf("%q: %q", next, got)
		}
	}
}

// Another site cannot make a browser that has logged in change anything.
func TestBrowser_of_another_site_changes_nothing(t *testing.T) {
	s := serve(t, server.Options{Web: page()})
	cookie := s.browser(api.RoleAdmin)
	for name, c := range map[string]struct {
		headers map[string]string
		ok      bool
	}{
		"our own page":       {map[string]string{"Sec-Fetch-Site": "same-origin", "Origin": s.base}, true},
		"an old browser":     {map[string]string{"Origin": s.base}, true},
		"another site":       {map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, false},
		"another port":       {map[string]string{"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:1"}, false},
		"an old one of evil": {map[string]string{"Origin": "https://evil.example"}, false},
		"a sandboxed frame":  {map[string]string{"Origin": "null"}, false},
	} {
		for _, path := range []string{"/api/v1/alerts/1/ack", "/vms/attest", "/login", "/logout"} {
			if c.ok && path == "/logout" {
				continue
			}
			r := s.post(path, nil, c.headers)
			r.Header.Set("Cookie", cookie)
			if strings.HasPrefix(path, "/api") {
				r.Body, r.ContentLength = nil, 0
			}
			if got := s.send(r, ""); (got.status == http.StatusForbidden) == c.ok {
				t.Errorf("%s from %s: %d %s", path, name, got.status, got.body)
			}
		}
	}
}

// DNS rebinding: a name that an attacker's server gave to 127.0.0.1.
func TestWeb_answers_for_its_own_names_only(t *testing.T) {
	s := serve(t, server.Options{Web: page()}, func(c *server.Config) { c.Listen.Names = []string{"verifier.example.org"} })
	for host, ok := range map[string]bool{"localhost": true, "localhost:16516": true, "127.0.0.1:5": true, "127.9.9.9": true, "[::1]:16516": true, "verifier.example.org": true, "VERIFIER.example.org:443": true,
		"evil.example": false, "localhost.evil.example": false, "10.0.0.1": false, "127.0.0.1.evil.example": false, "": false} {
		for _, path := range []string{"/", "/api/v1/version", "/api/v1/jwks"} {
			conn, err := net.Dial("tcp", strings.TrimPrefix(s.base, "http://"))
			must(t, err)
			must(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
			_, err = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nConnection: close\r\n\r\n", path, host, apitest.Secret(api.RoleViewer, ""))
			must(t, err)
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			must(t, err)
			if (res.StatusCode == http.StatusOK) != ok {
				t.Errorf("%s of %q: %d", path, host, res.StatusCode)
			}
			_ = conn.Close()
		}
	}
}

func TestTokens_that_are_guessed_are_slowed_down_and_a_good_one_goes_on(t *testing.T) {
	s := serve(t, server.Options{Web: page()})
	good := apitest.Secret(api.RoleViewer, "")
	if got := s.send(s.request("GET /api/v1/version", nil), good); got.status != 200 {
		t.Fatal(got.status)
	}
	statuses := map[int]int{}
	for i := range server.MaxStrikes + 5 {
		got := s.send(s.request("GET /api/v1/version", nil), fmt.Sprintf("va_%040d", i))
		statuses[got.status]++
	}
	if statuses[http.StatusUnauthorized] != server.MaxStrikes || statuses[http.StatusTooManyRequests] != 5 {
		t.Errorf("%v", statuses)
	}
	if got := s.send(s.request("GET /api/v1/version", nil), good); got.status != 200 {
		t.Errorf("a token that is in use: %d", got.status)
	}
	if got := s.send(s.post("/login", url.Values{"token": {apitest.LoginSecret(api.RoleViewer)}}, nil), ""); got.header.Get("Location") != "/login?error=busy" {
		t.Errorf("login: %v", got.header)
	}
	for _, h := range []string{"Basic eDp5", "Bearer", "Bearer ", "va_x", "Bearer a b"} {
		r := s.request("GET /api/v1/version", nil)
		r.Header.Set("Authorization", h)
		if got := s.send(r, ""); got.status != http.StatusUnauthorized && got.status != http.StatusTooManyRequests {
			t.Errorf("%q: %d", h, got.status)
		}
	}
	if strings.Contains(s.log.String(), "va_0000") {
		t.Error("a token is in the log")
	}
}

func TestTokens_that_are_taken_away_count_no_more_at_once(t *testing.T) {
	s := serve(t, server.Options{})
	c := s.client(api.RoleAdmin, "")
	tok, err := c.NewToken(t.Context(), api.TokenRequest{Name: "ci", Role: api.RoleViewer, TTL: 3600})
	must(t, err)
	d := c.WithToken(tok.Secret)
	if _, err := d.Overview(t.Context()); err != nil {
		t.Fatal(err)
	}
	must(t, c.DeleteToken(t.Context(), tok.ID))
	if _, err := d.Overview(t.Context()); !api.IsStatus(err, http.StatusUnauthorized) {
		t.Errorf("%v", err)
	}
}

func TestTokens_count_on_the_unix_socket_too_and_take_nothing_from_who_has_none(t *testing.T) {
	s := serve(t, server.Options{})
	c, err := api.NewClient("unix://"+s.unix, api.TLS{})
	must(t, err)
	defer c.Close()
	if _, err := c.Audit(t.Context(), 0, 1); err != nil {
		t.Errorf("root: %v", err)
	}
	if _, err := c.WithToken(apitest.Secret(api.RoleViewer, "")).Audit(t.Context(), 0, 1); !api.IsStatus(err, http.StatusForbidden) {
		t.Errorf("a viewer's token: %v", err)
	}
}

func TestHealth_has_a_limit_of_its_own(t *testing.T) {
	s := serve(t, server.Options{})
	token := apitest.Secret(api.RoleViewer, "")
	s.send(s.request("GET /healthz", nil), token)
	s.fake.Break(errors.New("the disk of 10.1.2.3 is gone"))
	defer s.fake.Break(nil)
	if got := s.send(s.request("GET /healthz", nil), token); got.status != 200 {
		t.Errorf("alive: %d", got.status)
	}
	got := s.send(s.request("GET /readyz", nil), token)
	if got.status != http.StatusServiceUnavailable || strings.Contains(got.body, "10.1.2.3") {
		t.Errorf("ready: %d %s", got.status, got.body)
	}
	if got := s.send(s.request("GET /api/v1/vms", nil), token); got.status != 500 || strings.Contains(got.body, "10.1.2.3") {
		t.Errorf("a fault tells more than it should: %s", got.body)
	}
}

// stream opens an event stream and gives its lines.
func (s *served) stream(token, query, last string) (*http.Response, *bufio.Scanner) {
	s.t.Helper()
	r := s.request("GET /api/v1/events"+query, nil)
	r.Header.Set("Accept", api.TypeEvents)
	r.Header.Set("Authorization", "Bearer "+token)
	if last != "" {
		r.Header.Set("Last-Event-ID", last)
	}
	res, err := http.DefaultTransport.RoundTrip(r)
	must(s.t, err)
	s.t.Cleanup(func() { _ = res.Body.Close() })
	return res, bufio.NewScanner(res.Body)
}

func TestEvents_are_a_stream_that_is_taken_up_where_it_broke(t *testing.T) {
	s := serve(t, server.Options{})
	c := s.client(api.RoleViewer, "")
	const n = 300
	var got []int64
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	first, err := c.Events(ctx, api.EventFilter{Newest: true, Limit: 1})
	must(t, err)
	start := first[0].ID
	go func() {
		for range n {
			s.fake.Emit(api.Event{Kind: api.EventVerdict, Text: "x\ny"})
			time.Sleep(time.Millisecond)
		}
	}()
	// A stream that is cut off again and again, as by a proxy.
	last := fmt.Sprint(start)
	for len(got) < n && ctx.Err() == nil {
		res, lines := s.stream(apitest.Secret(api.RoleViewer, ""), "", last)
		for i := 0; i < 20 && len(got) < n && lines.Scan(); {
			if v, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				var e api.Event
				must(t, json.Unmarshal([]byte(v), &e))
				got, last = append(got, e.ID), fmt.Sprint(e.ID)
				i++
			}
		}
		_ = res.Body.Close()
	}
	for i, id := range got {
		if id != start+1+int64(i) {
			t.Fatalf("event %d is %d, want %d", i, id, start+1+int64(i))
		}
	}
	if len(got) != n {
		t.Errorf("%d events", len(got))
	}
	enough := errors.New("enough")
	count := 0
	err = c.Follow(ctx, api.EventFilter{After: start}, func(e api.Event) error {
		if count++; e.ID != start+int64(count) {
			t.Errorf("the client gives %d", e.ID)
		}
		if count == n {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Error(err)
	}
}

func TestEvents_say_that_they_live_and_end_with_the_credential(t *testing.T) {
	s := serve(t, server.Options{})
	admin := s.client(api.RoleAdmin, "")
	tok, err := admin.NewToken(t.Context(), api.TokenRequest{Name: "short", Role: api.RoleViewer, TTL: 3600})
	must(t, err)
	res, lines := s.stream(tok.Secret, "", "")
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != api.TypeEvents {
		t.Fatal(res.Status)
	}
	beats := 0
	for beats < 3 && lines.Scan() {
		if strings.HasPrefix(lines.Text(), ":") {
			beats++
		}
	}
	must(t, admin.DeleteToken(t.Context(), tok.ID))
	ended := make(chan bool)
	go func() {
		for lines.Scan() {
			continue
		}
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("the stream of a token that was taken away goes on")
	}
	if beats != 3 {
		t.Errorf("%d signs of life", beats)
	}
}

func TestEvents_of_one_caller_are_a_few_streams(t *testing.T) {
	s := serve(t, server.Options{})
	var open []*http.Response
	for i := range server.MaxEventStreamsEach + 1 {
		res, _ := s.stream(apitest.Secret(api.RoleViewer, ""), "", "")
		want := http.StatusOK
		if i == server.MaxEventStreamsEach {
			want = http.StatusTooManyRequests
		}
		if res.StatusCode != want {
			t.Errorf("stream %d: %d", i, res.StatusCode)
		}
		open = append(open, res)
	}
	if res, _ := s.stream(apitest.Secret(api.RoleViewer, apitest.Red), "", ""); res.StatusCode != http.StatusOK {
		t.Errorf("another caller: %d", res.StatusCode)
	}
	_ = open[0].Body.Close()
	waitFor(t, func() bool {
		res, _ := s.stream(apitest.Secret(api.RoleViewer, ""), "", "")
		return res.StatusCode == http.StatusOK
	})
	for query, last := range map[string]string{"?newest=true": "", "?after=1": "x", "?kind=colour": "", "?limit=x": ""} {
		if res, _ := s.stream(apitest.Secret(api.RoleViewer, apitest.Blue), query, last); res.StatusCode != http.StatusBadRequest {
			t.Errorf("%s %q: %d", query, last, res.StatusCode)
		}
	}
}

// A reader that does not read is cut off; what waits for it stays within bounds meanwhile.
func TestEvents_do_not_pile_up_for_who_does_not_read(t *testing.T) {
	s := serve(t, server.Options{})
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.base, "http://"))
	must(t, err)
	defer func() { _ = conn.Close() }()
	must(t, conn.(*net.TCPConn).SetReadBuffer(4096))
	_, err = fmt.Fprintf(conn, "GET /api/v1/events?after=1 HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nAuthorization: Bearer %s\r\n\r\n", apitest.Secret(api.RoleViewer, ""))
	must(t, err)
	waitFor(t, func() bool { return s.srv.OpenStreams() == 1 })
	text := strings.Repeat("x", 256<<10)
	for range 100 {
		s.fake.Emit(api.Event{Kind: api.EventVerdict, Text: text})
	}
	waitFor(t, func() bool { return s.srv.OpenStreams() == 0 })
}

func TestExports_are_harmless_in_a_spreadsheet_and_whole(t *testing.T) {
	for in, want := range map[string]string{"=cmd|'/C calc'!A0": "'=cmd|'/C calc'!A0", "+1": "'+1", "-1": "'-1", "@x": "'@x", "'=1": "''=1", "\t=1": `\x09=1`, "\r=1": `\x0d=1`, "a\x00b": `a\x00b`, "<script>": `\x3cscript\x3e`,
		"\u202etxt.exe": `\u{202e}txt.exe`, "größe": "größe", "\xff": `\xff`, "a=b": "a=b"} {
		if got := server.Cell(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	s := serve(t, server.Options{})
	for name, n := range map[string]int{"vms": 30, "hosts": 3, "events": 50} {
		got := s.send(s.request("GET /api/v1/export/"+name+".csv", nil), apitest.Secret(api.RoleViewer, ""))
		rows, err := csv.NewReader(strings.NewReader(got.body)).ReadAll()
		if err != nil || len(rows) < n+1 || !strings.HasPrefix(got.header.Get("Content-Disposition"), "attachment") || strings.Contains(got.body, "<b>") {
			t.Errorf("%s: %d rows, %v", name, len(rows), err)
		}
		got = s.send(s.request("GET /api/v1/export/"+name+".json", nil), apitest.Secret(api.RoleViewer, ""))
		var all []map[string]any
		if err := json.Unmarshal([]byte(got.body), &all); name != "events" && (err != nil || len(all) != n) { // events are more than send reads
			t.Errorf("%s: %d, %v", name, len(all), err)
		}
	}
	got := s.send(s.request("GET /api/v1/export/vms.csv", nil), apitest.Secret(api.RoleViewer, apitest.Red))
	if n := strings.Count(got.body, "\n"); n != 11 {
		t.Errorf("a tenant's: %d lines", n)
	}
}

// Attack 54, CVE-2023-38200: a body that does not come holds up nobody else.
func TestBodies_that_come_slowly_hold_up_nobody(t *testing.T) {
	s := serve(t, server.Options{})
	var wg sync.WaitGroup
	for range 30 {
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.base, "http://"))
		must(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		_, err = fmt.Fprintf(conn, "PUT /api/v1/rims/x HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nContent-Length: 1000\r\n\r\n", apitest.Secret(api.RoleOperator, apitest.Red))
		must(t, err)
	}
	start := time.Now()
	for range 5 {
		wg.Go(func() {
			r := s.request("GET /api/v1/vms", nil)
			if got := s.send(r, apitest.Secret(api.RoleViewer, "")); got.status != 200 {
				t.Error(got.status)
			}
		})
	}
	wg.Wait()
	if d := time.Since(start); d > 3*time.Second {
		t.Errorf("took %v", d)
	}
}

// GHSA-6xx7-m45w-76m2: nothing is unpacked, so that nothing small becomes large.
func TestBodies_that_are_compressed_are_refused(t *testing.T) {
	s := serve(t, server.Options{})
	for _, r := range server.Routes() {
		if r.Body == 0 || r.Access == server.Hosts {
			continue
		}
		if got := s.raw(r.Pattern, "Content-Encoding: gzip", "Content-Length: 0"); got != "415" {
			t.Errorf("%s: %s", r.Pattern, got)
		}
	}
}

// CVE-2021-44716: headers without end.
func TestHeaders_are_bounded(t *testing.T) {
	s := serve(t, server.Options{})
	for _, h := range []string{"X: " + strings.Repeat("x", 64<<10), strings.Repeat("X: y\r\n", 8000) + "X: y"} {
		if got := s.raw("GET /api/v1/version", h); got != "431" {
			t.Errorf("%d bytes: %s", len(h), got)
		}
	}
}

// The same over TLS, where a token would otherwise cross the network in clear.
func TestWeb_beyond_this_machine_is_TLS_and_its_cookie_is_bound_to_it(t *testing.T) {
	a := newAuthority(t)
	files := a.issue("server", "verifier", time.Hour, nil)
	s := serve(t, server.Options{Web: page()}, func(c *server.Config) {
		c.Listen.Web, c.TLS.CA, c.TLS.Cert, c.TLS.Key = "0.0.0.0:0", files.CA, files.Cert, files.Key
		c.Operators.Roles = map[string]string{"alice": "viewer"}
	})
	_, port, err := net.SplitHostPort(s.srv.WebAddr().String())
	must(t, err)
	if got := ask(t, &http.Transport{}, "http://127.0.0.1:"+port, "GET /api/v1/version"); got != http.StatusBadRequest && got != 0 {
		t.Errorf("without TLS: %d", got)
	}
	c, conf := dialTLS(t, "127.0.0.1:"+port, api.TLS{CA: files.CA})
	if _, err := c.Version(t.Context()); !api.IsStatus(err, http.StatusUnauthorized) {
		t.Errorf("no credential: %v", err)
	}
	if _, err := c.WithToken(apitest.Secret(api.RoleViewer, "")).VMs(t.Context()); err != nil {
		t.Errorf("a token: %v", err)
	}
	alice, _ := dialTLS(t, "127.0.0.1:"+port, a.issue("alice", "alice", time.Hour, nil))
	if _, err := alice.VMs(t.Context()); err != nil {
		t.Errorf("a certificate with a role: %v", err)
	}
	if _, err := alice.Tokens(t.Context()); !api.IsStatus(err, http.StatusForbidden) {
		t.Errorf("more than the role: %v", err)
	}
	tr := &http.Transport{TLSClientConfig: conf}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://127.0.0.1:"+port+"/login", strings.NewReader(url.Values{"token": {apitest.LoginSecret(api.RoleViewer)}}.Encode()))
	must(t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := tr.RoundTrip(req)
	must(t, err)
	_ = res.Body.Close()
	if k := res.Header.Get("Set-Cookie"); !strings.HasPrefix(k, "__Host-") || !strings.Contains(k, "Secure") || strings.Contains(k, "Domain") {
		t.Errorf("cookie %q", k)
	}
}

func TestTLS_takes_no_tokens(t *testing.T) {
	a := newAuthority(t)
	_, addr := secured(t, a)
	c, _ := dialTLS(t, addr, a.issue("h", "host1", time.Hour, nil))
	if _, err := c.WithToken("va_0123456789abcdef0123456789abcdef").Version(t.Context()); !api.IsStatus(err, http.StatusForbidden) {
		t.Errorf("%v", err)
	}
}
