// Package webhook delivers events to somebody's HTTPS endpoint, in the way of Standard Webhooks
// (standardwebhooks.com): a JSON body, an HMAC-SHA256 signature over it in a header, an ID that stays the
// same when a delivery is tried again.
//
// The endpoint is hostile until shown otherwise, and so is its name: addresses are checked
// when the connection is made, redirects are not followed, answers are bounded in size and time and never shown
// to anybody. Deliver makes one attempt and says what to do next; Next says when. The queue is the caller's.
//
// Receivers check what they get with Verify or Receive.
package webhook
