package directproto

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"

	"virt-attest/attest"
	"virt-attest/internal/agentproto"
	"virt-attest/internal/channel"
)

// Answer is what a VM has answered. Nothing of it is believed before its quote and its link are verified.
type Answer struct {
	Quote   agentproto.Quoted
	AK      []byte
	IMA     attest.LogSegment
	BootLog []byte
	Agent   attest.AgentInfo
}

// ErrAnswer wraps what is wrong with a VM's answer: the guest's fault.
var ErrAnswer = errors.New("directproto: the VM's answer is of no use")

// Ask asks the VM at an address for a quote over nonce and what explains it, until ctx ends. name is what its certificate
// must be for; empty: the host in the address.
func Ask(ctx context.Context, address, name string, conf *tls.Config, nonce attest.Nonce, pcrs []attest.PCRSelection) (*Answer, error) {
	raw, host, err := Dial(ctx, address)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer stop()
	conf = conf.Clone()
	if conf.ServerName = name; name == "" {
		conf.ServerName = host
	}
	conn := tls.Client(raw, conf)
	if err := shake(ctx, conn); err != nil {
		return nil, errors.Join(fmt.Errorf("directproto: %s: %w", address, err), raw.Close())
	}
	c := &asking{client: channel.NewClient(conn, agentproto.MaxPayload, nil)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = c.client.Run() // its end shows in every request
	}()
	a, err := c.ask(ctx, nonce, pcrs)
	_ = raw.Close() // not conn, which would wait for the peer
	<-done
	return a, err
}

func shake(ctx context.Context, conn *tls.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	return conn.HandshakeContext(ctx)
}

type asking struct{ client *channel.Client }

func (c *asking) ask(ctx context.Context, nonce attest.Nonce, pcrs []attest.PCRSelection) (*Answer, error) {
	var a Answer
	var hello agentproto.Hello
	var id agentproto.Identity
	err := c.client.Call(ctx, agentproto.OpHello, nil, &hello)
	if err == nil {
		err = c.client.Call(ctx, agentproto.OpIdentity, nil, &id)
	}
	if err == nil {
		err = c.client.Call(ctx, agentproto.OpQuote, agentproto.Quote{Nonce: nonce[:], Selection: pcrs}, &a.Quote)
	}
	if err != nil {
		return nil, err
	}
	if len(id.AK) > attest.MaxPublic || len(a.Quote.Parameters) > attest.MaxQuote {
		return nil, fmt.Errorf("%w: over its limits", ErrAnswer)
	}
	a.AK = id.AK
	a.Agent = attest.AgentInfo{Version: attest.Clean(hello.Version), Kernel: attest.Clean(hello.Kernel), BootID: attest.Clean(hello.BootID)}
	if err := c.ima(ctx, &a); err != nil {
		return nil, err
	}
	return &a, c.boot(ctx, &a)
}

// ima takes the whole list.
func (c *asking) ima(ctx context.Context, a *Answer) error {
	seg := &a.IMA
	for more := true; more; {
		var k agentproto.LogChunk
		if err := c.client.Call(ctx, agentproto.OpIMA, agentproto.Log{BootID: seg.BootID, From: seg.Count}, &k); err != nil {
			return fmt.Errorf("IMA log: %w", err)
		}
		first := seg.TemplateHash == 0
		if k.From != seg.Count || k.Count > uint64(len(k.Data)) || (k.Count == 0) != (len(k.Data) == 0) || k.TemplateHash.Size() == 0 ||
			!first && (k.BootID != seg.BootID || k.TemplateHash != seg.TemplateHash) || len(seg.Data)+len(k.Data) > maxLog {
			return fmt.Errorf("%w: a piece of its IMA log does not fit", ErrAnswer)
		}
		seg.BootID, seg.TemplateHash = attest.Clean(k.BootID), k.TemplateHash
		seg.Data, seg.Count = append(seg.Data, k.Data...), seg.Count+k.Count
		more = k.More && k.Count > 0
	}
	return nil
}

// boot takes the event log, where the firmware left one.
func (c *asking) boot(ctx context.Context, a *Answer) error {
	for more := true; more; {
		var k agentproto.LogChunk
		err := c.client.Call(ctx, agentproto.OpBootLog, agentproto.Log{From: uint64(len(a.BootLog))}, &k)
		var remote *channel.RemoteError
		if errors.As(err, &remote) && remote.Code == channel.CodeUnavailable {
			return nil
		}
		if err != nil {
			return fmt.Errorf("boot log: %w", err)
		}
		if k.From != uint64(len(a.BootLog)) || k.Count != uint64(len(k.Data)) || len(a.BootLog)+len(k.Data) > attest.MaxBootLog {
			return fmt.Errorf("%w: a piece of its boot log does not fit", ErrAnswer)
		}
		a.BootLog = append(a.BootLog, k.Data...)
		more = k.More && k.Count > 0
	}
	return nil
}
