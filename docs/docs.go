// Package docs holds the documents that programs show.
package docs

import _ "embed" // the documents

// Reasons is docs/reasons.md: every reason of a verdict, and what to do.
//
//go:embed reasons.md
var Reasons string
