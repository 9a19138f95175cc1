// Package engine is what the Verifier does, apart from who asks and by which protocol: it enrols
// hosts, makes challenges and hands them out, takes answers, has them judged (verifier/evaluate) and
// keeps the outcome (verifier/store).
//
// # A challenge's life
//
// Attest finds the host, makes a nonce, notes each machine's replay state as it is now, records the
// challenge and wakes the host's poll. From then on a goroutine of its own owns the challenge
// (session): it waits for the Evidence, has quotes and links verified, asks for the activation of
// keys that are not on record, has the rest appraised and commits the outcome in one transaction. It
// ends at the challenge's NotAfter at the latest, with UNREACHABLE or ERROR for results where nothing came
// or something of ours failed. Whoever called Attest may be gone by then.
//
// A nonce is taken from the store when its answer comes, before anything of it is looked at, and can
// never be taken again. Challenges that were open when the process ended are void.
//
// Appraisals are bounded by a semaphore; nothing else waits for them. A panic in one of them
// is that one's ERROR.
package engine
