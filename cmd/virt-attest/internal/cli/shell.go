package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/term"
)

const shellPrompt = "virt-attest # "

// shell reads commands from a terminal until quit or the end of input, as virsh does, and runs each like a command line of its own
// with flags before it. An interrupt ends the command that runs, not the shell.
func (a *app) shell(ctx context.Context, flags []string) error {
	in, ok := a.in.(*os.File)
	if !ok {
		return fail(exitBug, "standard input is no file")
	}
	ctx, stop := signal.NotifyContext(context.WithoutCancel(ctx), syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	state, err := term.GetState(int(in.Fd()))
	if err != nil {
		return fail(exitUsage, "%v", err)
	}
	cooked := func() { _ = term.Restore(int(in.Fd()), state) } // of a terminal that is gone there is nothing to restore
	defer cooked()
	s := &session{
		term: term.NewTerminal(readWriter{a.in, a.out}, shellPrompt),
		raw:  func() error { _, err := term.MakeRaw(int(in.Fd())); return err }, cooked: cooked,
		run: func(words []string) int {
			ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
			defer stop()
			return Run(ctx, append(flags[:len(flags):len(flags)], words...), a.in, a.out, a.err)
		},
		complete: func(words []string) []string { return a.candidates(ctx, flags, words) },
	}
	s.term.AutoCompleteCallback = s.tab
	a.printf("Welcome to virt-attest. Type: 'help' for the commands, 'help COMMAND' for one of them, 'quit' to leave.\n\n")
	ended := make(chan error, 1)
	go func() { ended <- s.loop(ctx) }() // where ctx ends first, it ends with the process: a read from a terminal cannot be called off
	select {
	case <-ctx.Done():
		return nil
	case err := <-ended:
		return err
	}
}

type readWriter struct {
	io.Reader
	io.Writer
}

// session is one run of the shell.
type session struct {
	term     *term.Terminal
	raw      func() error // puts the terminal under the line editor
	cooked   func()       // and gives it back
	run      func(words []string) int
	complete func(words []string) []string // what the last word could be
}

func (s *session) loop(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := s.raw(); err != nil {
			return fail(exitUsage, "%v", err)
		}
		line, err := s.term.ReadLine()
		s.cooked()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && !errors.Is(err, term.ErrPasteIndicator) {
			return fail(exitUsage, "%v", err)
		}
		words, whole := splitWords(line)
		switch {
		case !whole:
			_, _ = io.WriteString(s.term, "virt-attest: a quotation mark is not closed\n")
		case len(words) == 0:
		case words[0] == "quit" || words[0] == "exit":
			return nil
		default:
			s.run(words)
		}
	}
	return nil
}

// tab completes the word before the cursor; where it can be several, they are shown.
func (s *session) tab(line string, pos int, key rune) (string, int, bool) {
	if key != '\t' {
		return "", 0, false
	}
	head := line[:pos]
	words, whole := splitWords(head)
	if !whole {
		return line, pos, true
	}
	if len(words) == 0 || strings.HasSuffix(head, " ") {
		words = append(words, "")
	}
	last := words[len(words)-1]
	var fit []string
	for _, c := range s.complete(words) {
		if strings.HasPrefix(c, last) {
			fit = append(fit, c)
		}
	}
	if len(fit) == 0 {
		return line, pos, true
	}
	more := fit[0]
	for _, c := range fit[1:] {
		for !strings.HasPrefix(c, more) {
			more = more[:len(more)-1]
		}
	}
	switch {
	case len(fit) == 1:
		more += " "
	case more == last:
		_, _ = io.WriteString(s.term, strings.Join(fit, "  ")+"\n")
	}
	if !strings.HasSuffix(head, last) { // it is written with quotation marks
		return line, pos, true
	}
	head += more[len(last):]
	return head + line[pos:], len(head), true
}

// candidates asks the commands what the last of words could be.
func (a *app) candidates(ctx context.Context, flags, words []string) []string {
	b := &app{in: strings.NewReader(""), out: io.Discard, err: io.Discard}
	cmd := b.root()
	var out bytes.Buffer
	words = splitVerb(words, func(word string) bool { return takesValue(cmd, word) })
	cmd.SetArgs(append([]string{"__completeNoDesc"}, append(flags[:len(flags):len(flags)], words...)...))
	cmd.SetOut(&out)
	cmd.SetErr(io.Discard)
	if cmd.ExecuteContext(ctx) != nil {
		return nil
	}
	list := strings.Split(strings.TrimSpace(out.String()), "\n")
	list = list[:max(len(list)-1, 0)] // the last line is the directive
	if len(words) == 1 {
		list = append(list, "quit")
	}
	for i := range list {
		list[i] = clean(list[i])
	}
	return list
}

// splitWords splits a line at blanks; quotation marks hold words together and a backslash takes the next character as it is. whole
// is false where a quotation mark is not closed.
func splitWords(line string) (words []string, whole bool) {
	var word strings.Builder
	in, quote, escaped := false, rune(0), false
	for _, c := range line {
		switch {
		case escaped:
			word.WriteRune(c)
			escaped = false
		case c == '\\' && quote != '\'':
			in, escaped = true, true
		case quote != 0:
			if c == quote {
				quote = 0
			} else {
				word.WriteRune(c)
			}
		case c == '\'' || c == '"':
			in, quote = true, c
		case c == ' ' || c == '\t':
			if in {
				words = append(words, word.String())
				word.Reset()
			}
			in = false
		default:
			in = true
			word.WriteRune(c)
		}
	}
	if in {
		words = append(words, word.String())
	}
	return words, quote == 0 && !escaped
}
