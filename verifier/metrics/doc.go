// Package metrics is what the Verifier counts, for Prometheus. docs/metrics.md explains every
// metric, docs/grafana has a dashboard of them.
//
// Labels have a few values each, known beforehand: methods take typed words, and what is not among
// them is "other". Nothing is labelled by path, file, machine or nonce; a hostile guest cannot add a
// time series.
//
// What a replica does itself is counted where it happens (Metrics). What is true of all of them is read from the
// database when somebody scrapes (Watch): each replica shows the same, so such gauges are not to be summed.
//
// A Metrics has a registry of its own. There is no package-level state.
package metrics
