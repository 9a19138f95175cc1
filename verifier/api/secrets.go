package api

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// Secret is a secret for VMs, without its value: that leaves the Verifier only sealed to a VM's vTPM (docs/secrets.md).
type Secret struct {
	Name     string    `json:"name"`
	Tenant   string    `json:"tenant,omitempty"` // whose it is; "": for VMs of all
	Size     int       `json:"size"`             // bytes
	Created  time.Time `json:"created"`
	Modified time.Time `json:"modified"`
	Author   string    `json:"author"`
	VMs      []string  `json:"vms"` // UUIDs that it is assigned to
}

// SecretPut is a secret's value.
type SecretPut struct {
	Tenant string `json:"tenant,omitempty"` // "": the caller's
	Value  []byte `json:"value"`            // base64 in JSON; 1 to 16384 bytes
}

// Secrets lists secrets without their values.
func (c *Client) Secrets(ctx context.Context) ([]Secret, error) {
	return items[Secret](ctx, c, "secrets", nil)
}

// PutSecret stores a secret, or another value of one.
func (c *Client) PutSecret(ctx context.Context, name string, s SecretPut) error {
	return c.doJSON(ctx, request{method: http.MethodPut, path: at("secrets", name)}, s, nil)
}

// DeleteSecret forgets a secret. What was released stays where it is.
func (c *Client) DeleteSecret(ctx context.Context, name, tenant string) error {
	return c.doJSON(ctx, request{method: http.MethodDelete, path: at("secrets", name), query: ofTenant(tenant)}, nil, nil)
}

// AssignSecret has a secret released to a VM from now on, or not any more.
func (c *Client) AssignSecret(ctx context.Context, name, tenant, vm string, on bool) error {
	r := request{method: http.MethodDelete, path: at("secrets", name, "vms", vm), query: ofTenant(tenant)}
	if on {
		r.method = http.MethodPut
	}
	return c.doJSON(ctx, r, nil, nil)
}

func ofTenant(tenant string) url.Values {
	q := url.Values{}
	put(q, "tenant", tenant)
	return q
}
