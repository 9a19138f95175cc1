package engine

import "virt-attest/verifier/api"

// An Engine is what the Verifier does for people and programs.
var _ api.Service = (*Engine)(nil)
