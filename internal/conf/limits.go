package conf

// Every bound of a configuration.
const (
	maxFile  = 64 << 10 // bytes of a file
	maxFiles = 65       // a file and its drop-ins
	maxValue = 4 << 10  // bytes of a variable
	maxShown = 160      // characters of a line that is shown
)
