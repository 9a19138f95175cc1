package inspect

// Every bound of the package.
const (
	maxData = 256 // bytes of an event's data that are shown
	maxText = 256 // bytes of a text that entries are searched for
)
