package guest

import (
	"bytes"
	"fmt"
	"strings"
)

// archive is a cpio archive in the form that the kernel takes ("newc",
// Documentation/driver-api/early-userspace/buffer-format.rst). Archives may stand one behind another.
type archive struct {
	b   bytes.Buffer
	ino int
}

const (
	modeDir  = 0o040755
	modeFile = 0o100644
	modeExec = 0o100755
)

func (a *archive) add(name string, mode int, data []byte) {
	a.ino++
	fmt.Fprintf(&a.b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		a.ino, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0, name)
	a.pad()
	a.b.Write(data)
	a.pad()
}

func (a *archive) pad() { a.b.WriteString(strings.Repeat("\x00", -a.b.Len()&3)) }

func (a *archive) dirs(names ...string) {
	for _, n := range names {
		a.add(n, modeDir, nil)
	}
}

func (a *archive) end() []byte {
	a.add("TRAILER!!!", 0, nil)
	return a.b.Bytes()
}
