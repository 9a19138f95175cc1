package e2e

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"virt-attest/test/guest"
	"virt-attest/test/scenario"
)

// look makes a browser do what the demonstration asks of a person: log in by the address, find the red VM and why
// it is, accept the program, see the impact, activate.
func look(t *testing.T) scenario.Look {
	return func(ctx context.Context, address string) error {
		base, err := url.Parse(address)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
		defer cancel()
		opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath("chromium"), chromedp.NoSandbox, chromedp.DisableGPU,
			chromedp.UserDataDir(t.TempDir()), chromedp.Flag("disable-component-update", true), chromedp.Flag("no-proxy-server", true))
		ctx, cancelBrowser := chromedp.NewExecAllocator(ctx, opts...)
		defer cancelBrowser()
		ctx, cancelTab := chromedp.NewContext(ctx)
		defer cancelTab()
		defer func() { _ = chromedp.Cancel(ctx) }()
		p := &person{ctx: ctx, base: base.Scheme + "://" + base.Host}
		p.step("log in", "", chromedp.Navigate(address), chromedp.WaitReady(chromedp.CSS("#token")), chromedp.KeyEvent(kb.Enter), chromedp.WaitReady(chromedp.CSS("#now")))
		p.step("find the VM", scenario.VM3.Name, chromedp.Navigate(p.base+"/vms?state=UNTRUSTED"), chromedp.WaitReady(chromedp.CSS("td.nm a")))
		p.step("read why", guest.Unlisted, chromedp.Navigate(p.base+"/vms/"+scenario.VM3.UUID), chromedp.WaitReady(chromedp.CSS("main")))
		p.step("choose the entry", guest.Unlisted, chromedp.Navigate(p.base+"/vms/"+scenario.VM3.UUID+"/ima"), chromedp.WaitReady(chromedp.CSS("input[name=entry]")),
			chromedp.Click(chromedp.CSS("input[name=entry]")))
		p.step("make the draft", guest.Unlisted, chromedp.Click(chromedp.CSS("#bad .primary")), chromedp.WaitReady(chromedp.CSS(`form[action$="/impact"]`)))
		p.step("see its impact", scenario.VM3.Name, chromedp.Click(chromedp.CSS(`form[action$="/impact"] button`)), chromedp.WaitReady(chromedp.CSS(".job form .primary")))
		p.step("activate it", "", chromedp.Click(chromedp.CSS(".job form .primary")), chromedp.WaitReady(chromedp.CSS("#jobs p a.button")))
		p.turnsTrusted()
		return p.err
	}
}

// person does one thing after the other until one fails.
type person struct {
	ctx  context.Context
	base string
	err  error
}

// step does something on the page, which must show a text afterwards.
func (p *person) step(what, shows string, actions ...chromedp.Action[chromedp.Void]) {
	if p.err != nil {
		return
	}
	if err := chromedp.Do(p.ctx, actions...); err != nil {
		p.err = fmt.Errorf("the page: %s: %w\n%s", what, err, p.text())
		return
	}
	if text := p.text(); !strings.Contains(text, shows) {
		p.err = fmt.Errorf("the page: %s: does not say %q:\n%s", what, shows, text)
	}
}

func (p *person) text() string {
	s, err := chromedp.Run(p.ctx, chromedp.Evaluate[string](`document.body.innerText`))
	if err != nil {
		return err.Error()
	}
	return s
}

// turnsTrusted waits until the page says of the VM that it is TRUSTED.
func (p *person) turnsTrusted() {
	for end := time.Now().Add(30 * time.Second); p.err == nil; time.Sleep(500 * time.Millisecond) {
		if err := chromedp.Do(p.ctx, chromedp.Navigate(p.base+"/vms?state=TRUSTED")); err != nil {
			if time.Now().After(end) {
				p.err = err
			}
			continue // the page of the job may be about to load itself anew, which aborts this
		}
		text := p.text()
		if strings.Contains(text, scenario.VM3.Name) {
			return
		}
		if time.Now().After(end) {
			p.err = fmt.Errorf("the page: vm3 stays as it was:\n%s", text)
		}
	}
}
