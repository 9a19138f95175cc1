package cli

import (
	"context"

	"virt-attest/verifier/api"
)

// fetch gets one page of a list.
type fetch[T any] func(context.Context, api.Page) (*api.List[T], error)

// pages gets a list with all its pages, and shows how far it is where there are several.
func pages[T any](ctx context.Context, a *app, what string, get fetch[T]) ([]T, error) {
	var out []T
	err := eachPage(ctx, a, what, get, func(items []T) error {
		out = append(out, items...)
		return nil
	})
	return out, err
}

// eachPage calls f with each page of a list.
func eachPage[T any](ctx context.Context, a *app, what string, get fetch[T], f func([]T) error) error {
	p := api.Page{Limit: api.MaxPageSize}
	var bar *progress
	done := 0
	for range maxPages {
		l, err := get(ctx, p)
		if err != nil {
			return asked(err)
		}
		if err := f(l.Items); err != nil {
			return err
		}
		if done += len(l.Items); l.Next == "" {
			return nil
		}
		if bar == nil {
			bar = a.begin(what, l.Total)
			defer bar.end()
		}
		bar.set(done, l.Total)
		if l.Next == p.Cursor || len(l.Items) == 0 {
			break
		}
		p.Cursor = l.Next
	}
	return fail(exitBug, "the Verifier's list of %s has no end", what)
}

// hostsOf and vmsOf are the lists by filter.
func hostsOf(client *api.Client, f api.MachineFilter) fetch[api.Host] {
	return func(ctx context.Context, p api.Page) (*api.List[api.Host], error) { return client.HostPage(ctx, f, p) }
}

func vmsOf(client *api.Client, f api.MachineFilter) fetch[api.VM] {
	return func(ctx context.Context, p api.Page) (*api.List[api.VM], error) { return client.VMPage(ctx, f, p) }
}
