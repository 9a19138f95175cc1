// Package binding ties a host's quote to what it vouches for.
//
// One host quote answers every challenge that waits when a round begins. Each challenge becomes an
// item, H("item" tag || scheme || nonce || body), where body is SEPA's Merkle root over VM leaves,
// HYPA's snapshot digest, or zero for the host alone. The items are the leaves of the round's Merkle
// tree, and the quote's qualifying data is H("composite" tag || root). A Verifier needs its own item and
// the path; it learns nothing about other challenges. Formats: docs/protocol.md.
package binding
