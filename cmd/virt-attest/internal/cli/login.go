package cli

import (
	"context"
	"net/netip"
	"net/url"
	"os/user"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"virt-attest/verifier/api"
)

func (a *app) loginLinkCmd() *cobra.Command {
	var role, tenant, web string
	var ttl time.Duration
	cmd := a.verb("login-link", "Print an address that logs a browser in, once", noArgs, func(ctx context.Context, client *api.Client, _ []string) error {
		if !slices.Contains(roles(), role) {
			return fail(exitUsage, "--role is one of %s", strings.Join(roles(), ", "))
		}
		base, err := a.webPage(web)
		if err != nil {
			return err
		}
		t, err := client.NewToken(ctx, api.TokenRequest{Name: loginName(), Role: api.Role(role), Tenant: tenant, TTL: ttl.Seconds(), Login: true})
		if err != nil {
			return asked(err)
		}
		link := base.JoinPath("login")
		link.Fragment = t.Secret // a browser keeps it to itself: not in the request, not in logs
		return a.showSecret(map[string]any{"url": link.String(), "expires": t.Expires}, link.String(), "good for one login as "+role+", expires "+until(t.Expires))
	})
	cmd.Long = "Makes a one-time login token and prints the address of the Verifier's web page with it. Whoever opens it first is logged in."
	fl := cmd.Flags()
	fl.StringVar(&role, "role", string(api.RoleOperator), "what the browser may do: "+strings.Join(roles(), ", "))
	fl.StringVar(&tenant, "tenant", "", "sees the VMs of this `TENANT` only")
	fl.DurationVar(&ttl, "ttl", 10*time.Minute, "how long the address is good for")
	fl.StringVar(&web, "web", "", "the `URL` of the web page (default: verifier.web of the configuration)")
	_ = cmd.RegisterFlagCompletionFunc("role", words(roles()...))
	return cmd
}

// webPage is where the web page is. It may be without TLS on this machine only: what is typed and shown there would cross
// the network in clear.
func (a *app) webPage(flag string) (*url.URL, error) {
	address := a.conf.Verifier.Web
	if flag != "" {
		address = flag
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.RawQuery+u.Fragment != "" {
		return nil, fail(exitConfig, "the address of the web page is '%s', which is neither https://HOST[:PORT] nor http://localhost[:PORT]", clean(address))
	}
	if u.Scheme == "http" && !loopback(u.Hostname()) {
		return nil, fail(exitInsecure, "%s would send the login in clear over the network; use https", clean(address))
	}
	return u, nil
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// loginName names a login in lists and in the audit log.
func loginName() string {
	u, err := user.Current()
	if err != nil {
		return "login"
	}
	return "login-" + clean(u.Username)
}
