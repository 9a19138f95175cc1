package measurement

// Every bound on what a list may hold.
const (
	// MaxEntry is the largest entry in bytes: no kernel template comes near it, except
	// buffers (keys, policies) measured by ima-buf.
	MaxEntry = 1 << 20
	// MaxTemplateName is the longest template name: 15 fields of 16 characters with
	// separators (IMA_TEMPLATE_NUM_FIELDS_MAX, IMA_TEMPLATE_FIELD_ID_MAX_LEN).
	MaxTemplateName = 255
	// MaxFields is the largest number of fields of a template.
	MaxFields = 15
	// MaxEntries bounds the work of one Replay.
	MaxEntries = 4 << 20
	// maxNamePadded is the size to which the "ima" template pads the file name for hashing
	// (IMA_EVENT_NAME_LEN_MAX + 1).
	maxNamePadded = 256
)
