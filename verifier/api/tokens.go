package api

import "time"

// Token is a bearer credential. Secret is shown once, when it is made.
type Token struct {
	ID       string    `json:"id"`
	Name     string    `json:"name"`
	Role     Role      `json:"role"`
	Tenant   string    `json:"tenant,omitempty"`
	Created  time.Time `json:"created"`
	Expires  time.Time `json:"expires"`
	LastUsed time.Time `json:"last_used,omitzero"`
	Secret   string    `json:"secret,omitempty"`
}

// TokenRequest asks for a token.
type TokenRequest struct {
	Name   string  `json:"name"`
	Role   Role    `json:"role"`
	Tenant string  `json:"tenant,omitempty"`
	TTL    float64 `json:"ttl"`             // seconds; 60 to 366 days
	Login  bool    `json:"login,omitempty"` // good for one login of a browser
}

// EnrolToken admits one host without an operator, once.
type EnrolToken struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"` // of the host that it is for; "": any
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	UsedBy  string    `json:"used_by,omitempty"` // host ID
	Secret  string    `json:"secret,omitempty"`  // shown once
}

// EnrolTokenRequest asks for an EnrolToken.
type EnrolTokenRequest struct {
	Name string  `json:"name"` // of the host that it is for; "": any
	TTL  float64 `json:"ttl"`  // seconds
}
