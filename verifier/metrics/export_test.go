package metrics

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
)

// Describe gives the description of every metric.
func Describe(ctx context.Context) []string {
	m := New(ComponentVerifier, "", nil)
	m.Watch(ctx, nil)
	ch := make(chan *prometheus.Desc, 1000)
	m.registry.Describe(ch)
	close(ch)
	var out []string
	for d := range ch {
		out = append(out, d.String())
	}
	return out
}
