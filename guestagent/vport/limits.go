package vport

import "time"

const (
	firstPause = 50 * time.Millisecond // before looking for an absent port again, doubled each time
	maxPause   = time.Second
)
