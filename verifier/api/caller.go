package api

import "context"

type callerKey struct{}

// WithCaller notes in a request's context who makes it.
func WithCaller(ctx context.Context, who Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, who)
}

// CallerOf gives who makes a request, or false where nobody has shown a credential.
func CallerOf(ctx context.Context) (Caller, bool) {
	who, ok := ctx.Value(callerKey{}).(Caller)
	return who, ok
}
