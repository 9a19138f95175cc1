package main

import (
	"log/slog"

	"virt-attest/internal/agentproto"
	"virt-attest/internal/channel"
	"virt-attest/internal/ptpm"
	"virt-attest/internal/tpmkeys"
)

// quoteToo has this VM's own vTPM answer a request for a quote before the copy does: the vTPM then did quote
// over the challenge, as the host's record says, but that is not the quote that goes back.
func quoteToo(log *slog.Logger) func(op uint8, payload []byte) {
	return func(op uint8, payload []byte) {
		if op != agentproto.OpQuote {
			return
		}
		err := quoteHere(payload)
		log.Info("own quote", "err", err)
	}
}

func quoteHere(payload []byte) error {
	var q agentproto.Quote
	if err := channel.Decode(payload, &q); err != nil {
		return err
	}
	tpm := ptpm.Device("/dev/tpmrm0")
	defer func() { _ = tpm.Close() }()
	ak, err := tpmkeys.CreateAK(tpm)
	if err != nil {
		return err
	}
	defer func() { _ = ak.Close() }()
	_, _, err = tpmkeys.Quote(tpm, ak, q.Nonce, q.Selection)
	return err
}
