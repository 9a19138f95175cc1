package swtpmctl

import "fmt"

// Command is the number of a control command.
type Command uint32

// The control commands.
const (
	GetCapability       Command = 0x01
	Init                Command = 0x02
	Shutdown            Command = 0x03
	GetTPMEstablished   Command = 0x04
	SetLocality         Command = 0x05
	HashStart           Command = 0x06
	HashData            Command = 0x07
	HashEnd             Command = 0x08
	CancelTPMCmd        Command = 0x09
	StoreVolatile       Command = 0x0a
	ResetTPMEstablished Command = 0x0b
	GetStateBlob        Command = 0x0c
	SetStateBlob        Command = 0x0d
	Stop                Command = 0x0e
	GetConfig           Command = 0x0f
	SetDataFD           Command = 0x10
	SetBufferSize       Command = 0x11
	GetInfo             Command = 0x12
	LockStorage         Command = 0x13
)

// Result is the first word of a reply.
type Result uint32

// Results that swtpm itself gives (TPM 1.2 return codes).
const (
	Success      Result = 0
	BadParameter Result = 0x03
	Fail         Result = 0x09
	BadOrdinal   Result = 0x0a // unknown command, or not in this state
	IOError      Result = 0x1f // SET_DATAFD while one is set
	BadLocality  Result = 0x3d
)

// shape is what a command looks like on the wire, in bytes.
type shape struct {
	name    string
	request int // command word and fixed part of the body
	short   int // another size that swtpm takes too, 0: none
	reply   int // reply of success, fixed part
}

var shapes = map[Command]shape{
	GetCapability:       {"GET_CAPABILITY", 4, 0, 8},
	Init:                {"INIT", 8, 0, 4},
	Shutdown:            {"SHUTDOWN", 4, 0, 4},
	GetTPMEstablished:   {"GET_TPMESTABLISHED", 4, 0, 8},
	SetLocality:         {"SET_LOCALITY", 8, 5, 4},
	HashStart:           {"HASH_START", 4, 0, 4},
	HashData:            {"HASH_DATA", 8, 0, 4},
	HashEnd:             {"HASH_END", 4, 0, 4},
	CancelTPMCmd:        {"CANCEL_TPM_CMD", 4, 0, 4},
	StoreVolatile:       {"STORE_VOLATILE", 4, 0, 4},
	ResetTPMEstablished: {"RESET_TPMESTABLISHED", 8, 5, 4},
	GetStateBlob:        {"GET_STATEBLOB", 16, 0, 16},
	SetStateBlob:        {"SET_STATEBLOB", 16, 0, 4},
	Stop:                {"STOP", 4, 0, 4},
	GetConfig:           {"GET_CONFIG", 4, 0, 8},
	SetDataFD:           {"SET_DATAFD", 4, 0, 4},
	SetBufferSize:       {"SET_BUFFERSIZE", 8, 0, 16},
	GetInfo:             {"GET_INFO", 20, 0, 12},
	LockStorage:         {"LOCK_STORAGE", 8, 0, 4},
}

func (c Command) String() string {
	if s, ok := shapes[c]; ok {
		return s.name
	}
	return fmt.Sprintf("command %#x", uint32(c))
}
