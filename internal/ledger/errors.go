package ledger

import (
	"errors"
	"fmt"
)

var (
	// ErrNotFound says that the store is intact as far as it was read and holds no such record.
	ErrNotFound = errors.New("no such record in the hypervisor store")
	// ErrDamaged says that the store was edited, truncated or lost a file; errors.As gives a *DamagedError.
	ErrDamaged = errors.New("hypervisor store is damaged")
	// ErrLocked says that another process writes this VM's store.
	ErrLocked = errors.New("hypervisor store is in use by another process")
	// ErrFull says that MaxAwaited announcements are waiting already.
	ErrFull = errors.New("too many quotes are awaited")
	// ErrInvalid says that an argument is out of its bounds: the caller's fault.
	ErrInvalid = errors.New("ledger: invalid argument")
)

// DamagedError says where the store is damaged.
type DamagedError struct {
	File   string // name in the VM's directory
	Line   int    // counted from 1, 0 where the whole file is meant
	Reason string
}

func (e *DamagedError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%v: %s: %s", ErrDamaged, e.File, e.Reason)
	}
	return fmt.Sprintf("%v: %s line %d: %s", ErrDamaged, e.File, e.Line, e.Reason)
}

// Is makes errors.Is(err, ErrDamaged) true.
func (e *DamagedError) Is(target error) bool { return target == ErrDamaged }
