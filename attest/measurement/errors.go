package measurement

import (
	"errors"
	"fmt"
)

// Kind says what is wrong with a list.
type Kind uint8

// The kinds of Error. All are the machine's (or its messenger's) doing.
const (
	KindMalformed  Kind = iota + 1 // bytes that no kernel writes, or a wrong count
	KindIncomplete                 // the segment ends inside an entry
	KindPosition                   // entries are missing between the proof before and the segment
	KindShort                      // the list is shorter than what was proven before
	KindPCR                        // an entry for another PCR
	KindBanks                      // the quoted banks do not fit each other, the list or the proof before
	KindNotReached                 // no prefix gives the quoted value
	KindAltered                    // as KindNotReached, and the entry that was changed is known
	KindLimit                      // over the limits
)

// Error is a list that does not prove the quoted values.
type Error struct {
	Kind  Kind
	Index uint64 // the entry where it was noticed
	Text  string
}

func (e *Error) Error() string {
	return fmt.Sprintf("measurement: IMA entry %d: %s", e.Index, e.Text)
}

func malformed(err error, index uint64) error {
	if errors.Is(err, ErrIncomplete) {
		return &Error{Kind: KindIncomplete, Index: index, Text: "the segment ends inside this entry"}
	}
	return &Error{Kind: KindMalformed, Index: index, Text: err.Error()}
}
