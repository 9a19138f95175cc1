package web

import "time"

// Every bound of the page.
const (
	maxForm     = 1 << 20              // bytes of a form, other than an uploaded document
	maxFields   = 2000                 // values of one form field
	maxPath     = 1024                 // characters of a path that are shown
	maxName     = 120                  // characters of a name that are shown
	maxText     = 400                  // characters of a sentence that are shown
	maxBack     = 12                   // earlier pages of a list that "Previous" remembers
	maxQuery    = 200                  // bytes of what is searched for
	maxEdit     = 1 << 20              // bytes of a document that can be edited as text in the browser
	maxDiff     = 400                  // changes of a diff that are shown
	maxBulk     = 1000                 // VMs of one bulk attestation
	maxJobs     = 50                   // jobs on one page
	maxTimeline = 500                  // events of a machine's timeline
	maxBoot     = 5000                 // boot events that are shown
	maxLines    = 24                   // VMs of a host drawn one by one in the topology
	maxDrawn    = 40                   // hosts drawn in the topology
	rows        = 100                  // of a list's page
	steps       = 120                  // points of a plot
	remembered  = 365 * 24 * time.Hour // that it keeps its theme
)
