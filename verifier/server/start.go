package server

import (
	"context"
	"log/slog"
	"os"
	"time"

	"virt-attest/internal/version"
	"virt-attest/verifier/engine"
	"virt-attest/verifier/metrics"
	"virt-attest/verifier/store"
	"virt-attest/verifier/vault"
	"virt-attest/verifier/web"
	"virt-attest/verifier/webhook"
)

// Start opens database, engine and listeners as configured, calls ready, and serves until ctx ends.
func Start(ctx context.Context, conf Config, log *slog.Logger, ready func()) error {
	m := metrics.New(metrics.ComponentVerifier, version.Version, patterns())
	st, err := openStore(ctx, conf, log, observeStore(m))
	if err != nil {
		return err
	}
	defer func() { _ = st.Close() }()
	e, err := openEngine(ctx, conf, st, m, log)
	if err != nil {
		return err
	}
	defer e.Close()
	doc, err := OpenAPI()
	if err != nil {
		return err
	}
	page, err := web.New(e, web.Options{OpenAPI: doc, Version: version.Version, Log: log})
	if err != nil {
		return err
	}
	s, err := New(ctx, conf, e, Options{Web: page, Metrics: m.Handler(), Observe: m.Request}, log)
	if err != nil {
		return err
	}
	m.Watch(ctx, snapshot(e, s.pki))
	ready()
	return s.Run(ctx)
}

func openEngine(ctx context.Context, conf Config, st *store.Store, m *metrics.Metrics, log *slog.Logger) (*engine.Engine, error) {
	name, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	keep := store.Retention{Reports: conf.Store.Reports, Evidence: conf.Store.Evidence, Age: time.Duration(conf.Store.Age), Events: time.Duration(conf.Store.Events)}
	return engine.New(ctx, engine.Config{Store: st, Log: log, Issuer: conf.Results.Issuer,
		Workers: conf.Limits.Workers, EKIssuers: conf.Hosts.EKIssuers, Retention: keep, Version: version.Version, Hostname: name, Meter: m.Meter(), Vault: openVault(conf),
		Webhooks: webhook.Config{InsecureHTTP: conf.Webhooks.InsecureHTTP, InsecureLocal: conf.Webhooks.InsecureLocal}})
}

// openVault gives the keeper of secrets. A Verifier that has its database for itself makes the key when it is needed first; replicas
// have to be given the same.
func openVault(conf Config) *vault.Vault {
	if conf.Secrets.Key == "" {
		return nil
	}
	return &vault.Vault{Path: conf.Secrets.Key, Create: conf.Store.URL == ""}
}

// openStore opens the database that the configuration names, and brings its tables up to date. observe may be nil.
func openStore(ctx context.Context, conf Config, log *slog.Logger, observe func(write bool, took time.Duration)) (*store.Store, error) {
	c := store.Config{Path: conf.Store.Path, Chain: engine.Chain, Log: log, Observe: observe}
	if conf.Store.URL != "" {
		c.Path, c.URL = "", conf.Store.URL
	}
	return store.Open(ctx, c)
}

// patterns are those of the table of routes, and of the web page.
func patterns() []string {
	out := []string{pagePattern}
	for _, rt := range (&Server{}).routes() {
		out = append(out, rt.pattern)
	}
	return out
}
