package server

import (
	"errors"
	"net/http"
	"time"

	"virt-attest/attest"
	"virt-attest/verifier/api"
)

type helloIn struct {
	Body api.HostHello `body:"application/cbor"`
}

func (s *Server) hello(c *call, in *helloIn) (*api.HostWelcome, error) {
	return s.hostd.Hello(c.r.Context(), c.who.client, &in.Body)
}

type pollIn struct {
	Host     string  `query:"host" doc:"the host's ID"`
	Wait     float64 `query:"wait" doc:"seconds, at most 60"`
	Verdicts string  `query:"verdicts" doc:"which verdicts on its machines the host knows: the cursor of the last answer, 0 none of them; absent: it does not want to be told"`
}

// poll gives challenges, and verdicts to whoever asks for them. Challenges that do not reach the host are put back.
func (s *Server) poll(c *call, in *pollIn) error {
	if in.Wait > api.MaxWait.Seconds() {
		return api.NewProblem(http.StatusBadRequest, "wait is not a number of seconds from 0 to %v", api.MaxWait.Seconds())
	}
	p, failed, err := s.hostd.Poll(c.r.Context(), c.who.client, api.PollRequest{Host: in.Host, Wait: time.Duration(in.Wait * float64(time.Second)), Verdicts: in.Verdicts})
	if err != nil {
		return err
	}
	if err := c.cbor(p); err != nil {
		failed()
		return err
	}
	if err := http.NewResponseController(c.w).Flush(); err != nil {
		failed()
		return errors.Join(errSent, err)
	}
	return nil
}

type challengeIn struct {
	Body api.ChallengeRequest `body:"application/cbor"`
}

func (s *Server) challenge(c *call, in *challengeIn) (*attest.Challenge, error) {
	return s.hostd.Challenge(c.r.Context(), c.who.client, in.Body)
}

type evidenceIn struct {
	Body []byte `body:"application/cbor"`
}

func (s *Server) evidence(c *call, in *evidenceIn) (*api.EvidenceReply, error) {
	return s.hostd.Evidence(c.r.Context(), c.who.client, in.Body)
}

type activatedIn struct {
	Body api.Activated `body:"application/cbor"`
}

func (s *Server) activated(c *call, in *activatedIn) error {
	return s.hostd.Activated(c.r.Context(), c.who.client, &in.Body)
}
