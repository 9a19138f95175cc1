package server_test

import (
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
	"virt-attest/verifier/api/apitest"
	"virt-attest/verifier/server"
)

// A poll's challenges are not lost with the connection that they were to go over.
func TestPoll_puts_back_what_did_not_reach_the_host(t *testing.T) {
	s := serve(t, server.Options{})
	var list []attest.Challenge
	for i := range 40 { // more than a connection takes that nobody reads
		c := attest.Challenge{Nonce: attest.Nonce{byte(i), 1}, Scheme: attest.SchemeSEPA, Host: apitest.HostID(1), NotAfter: time.Now().Unix() + 60}
		for j := range 3000 {
			c.Resume = append(c.Resume, attest.Resume{Machine: attest.UUID{1, byte(j >> 8), byte(j)}, BootID: "00000000-0000-0000-0000-000000000000", Count: 1})
		}
		list = append(list, c)
	}
	s.fake.Offer(list...)
	conn, err := net.Dial("unix", s.unix)
	must(t, err)
	_, err = fmt.Fprintf(conn, "GET /api/v1/host/challenges?host=%s&wait=0 HTTP/1.1\r\nHost: x\r\n\r\n", apitest.HostID(1))
	must(t, err)
	_, err = io.ReadFull(conn, make([]byte, 100)) // the answer has begun
	must(t, err)
	must(t, conn.Close())
	c, err := api.NewClient("unix://"+s.unix, api.TLS{})
	must(t, err)
	defer c.Close()
	waitFor(t, func() bool {
		p, err := c.Poll(t.Context(), api.PollRequest{Host: apitest.HostID(1)})
		return err == nil && len(p.Challenges) == len(list) && p.Schedule != nil
	})
	ch, err := c.Challenge(t.Context(), api.ChallengeRequest{Host: apitest.HostID(1), Scheme: attest.SchemeSEPA})
	if err != nil || ch.Host != apitest.HostID(1) {
		t.Errorf("%+v %v", ch, err)
	}
}
