// Package evaluate is the Verifier's judgement of one Evidence, from bytes to Results, as pure
// functions. The service (verifier/engine) and the offline check of a saved file (VerifySaved) both
// go through it; there is no second implementation.
//
//	linked, err := evaluate.Link(ev, want, now)      // quotes, challenge, layers
//	id := evaluate.Identify(linked, ev, record)      // whose keys are these?
//	out := evaluate.Judge(ev, linked, id, …)         // reference values, replay, verdict
//
// Between Identify and Judge the service has keys proven by credential activation
// (Identity.Unproven); what is not proven then is a Reason against the machine.
//
// # Who is who
//
// A host is its endorsement key: its ID is that key's digest, so another key is another host. A
// vTPM is its endorsement key too, as a host read and signed it. A VM's UUID is a label: it stays with
// the vTPM that was seen first under it, and a vTPM stays with its label and with one host at a time. It may
// appear on another host only after the last one has said that it left. Everything else
// is CodeIdentityChanged, and an operator decides.
//
// # Saved evidence
//
// What is saved holds whole IMA logs (Whole), while what was received held increments. Received gives
// the answer back as the host made it, for its signatures are about that.
package evaluate
