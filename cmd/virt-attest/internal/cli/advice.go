package cli

import (
	"fmt"
	"strings"

	"virt-attest/verifier/api"
	"virt-attest/verifier/appraise"
)

// advice gives the commands that look closer at a reason, or would do what it asks for. Where a command accepts what is
// there, it stands last.
func advice(m *machine, s *api.Settings, r appraise.Reason) []string {
	name, host := shellWord(m.name), m.hostFlag()
	rim, of := "NAME", "--from-domain "+name
	if len(s.RIMs) > 0 {
		rim = shellWord(s.RIMs[0])
	}
	if m.isHost {
		of = "--from-host " + name
	}
	verb := func(words ...string) string { return "virt-attest " + strings.Join(words, " ") }
	switch r.Code {
	case appraise.CodeIMAUnlisted, appraise.CodeIMADigest:
		return []string{verb("log", name, "--ima --bad"+host), verb("rim accept", rim, name+host, accepting(r))}
	case appraise.CodeIMAViolation:
		return []string{verb("log", name, "--ima --bad"+host), verb("rim edit", rim)}
	case appraise.CodePCRMismatch:
		return []string{verb("pcrs", name, "--diff"+host), verb("rim accept", rim, name+host, accepting(r))}
	case appraise.CodeBootLog, appraise.CodeIMABootAggregate:
		return []string{verb("log", name, "--boot"+host)}
	case appraise.CodeIMALog, appraise.CodeMalformed, appraise.CodeExpired, appraise.CodeNeverAttested, appraise.CodeVMMissing, appraise.CodeQuoteNonce:
		return []string{attestAgain(m)}
	case appraise.CodeNoReference:
		return []string{verb("rim create NAME", of), verb("rim assign NAME", name+host)}
	case appraise.CodeHostNotTrusted:
		return []string{verb("why", shellWord(m.host), "--host")}
	case appraise.CodeUnapproved, appraise.CodeEKUntrusted:
		return []string{"virt-attest-hostd -identity   # on the host itself", verb("host approve", shellWord(m.host), "--ek-sha256 HEX")}
	case appraise.CodeIdentityChanged, appraise.CodeRollback:
		return []string{verb("history", name+host), verb("certs", name+host), forget(m)}
	case appraise.CodeInternal:
		return []string{"journalctl -u virt-attest-verifierd   # where the Verifier runs"}
	}
	return atTheHost(m, r)
}

// atTheHost is advice that has to be followed on the host or in the VM.
func atTheHost(m *machine, r appraise.Reason) []string {
	switch r.Code {
	case appraise.CodeNoAgent, appraise.CodeIMAMissing:
		return []string{"systemctl status virt-attest-guest   # in the VM", attestAgain(m)}
	case appraise.CodeNoTPM, appraise.CodeLinkNoRecord:
		return []string{fmt.Sprintf("systemctl status 'virt-attest-s*@%s.service'   # on the host", m.id)}
	case appraise.CodeNotRunning:
		return []string{"virsh start " + shellWord(m.name) + "   # on its host", attestAgain(m)}
	case appraise.CodeNoAnswer:
		return []string{"systemctl status virt-attest-hostd   # on the host", "virt-attest host info " + shellWord(m.host)}
	}
	return []string{"virt-attest report " + shellWord(m.name) + m.hostFlag() + " --format json", "virt-attest attest " + target(m) + " --save FILE"}
}

func attestAgain(m *machine) string { return "virt-attest attest " + target(m) }

// target names a machine to attest.
func target(m *machine) string {
	if m.isHost {
		return "--host --on " + shellWord(m.name)
	}
	return shellWord(m.name)
}

func forget(m *machine) string {
	if m.isHost {
		return "virt-attest host unenroll " + shellWord(m.name) + "   # if it was meant"
	}
	return "virt-attest rebaseline " + shellWord(m.name) + " --yes   # if it was meant"
}

// accepting names what a reason is about, for rim accept.
func accepting(r appraise.Reason) string {
	switch {
	case r.Entry != nil:
		return fmt.Sprintf("--entry %d", *r.Entry)
	case r.PCR != nil:
		return fmt.Sprintf("--pcr %d", *r.PCR)
	}
	return "--all"
}

// shellWord makes a name that a machine gave one harmless word of a shell.
func shellWord(s string) string {
	const harmless = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-:@/"
	if s != "" && s[0] != '-' && strings.Trim(s, harmless) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(clean(s), "'", `'\''`) + "'"
}
