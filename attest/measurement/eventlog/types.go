package eventlog

import "fmt"

// Type is an event's type. Nothing proves it.
type Type uint32

// The event types (PC Client Platform Firmware Profile, section 10.4.1).
const (
	PrebootCert            Type = 0x0
	PostCode               Type = 0x1
	NoAction               Type = 0x3
	Separator              Type = 0x4
	Action                 Type = 0x5
	EventTag               Type = 0x6
	CRTMContents           Type = 0x7
	CRTMVersion            Type = 0x8
	CPUMicrocode           Type = 0x9
	PlatformConfigFlags    Type = 0xa
	TableOfDevices         Type = 0xb
	CompactHash            Type = 0xc
	IPL                    Type = 0xd
	IPLPartitionData       Type = 0xe
	NonhostCode            Type = 0xf
	NonhostConfig          Type = 0x10
	NonhostInfo            Type = 0x11
	OmitBootDeviceEvents   Type = 0x12
	PostCode2              Type = 0x13
	EFIVariableDriver      Type = 0x80000001
	EFIVariableBoot        Type = 0x80000002
	EFIBootApplication     Type = 0x80000003
	EFIBootDriver          Type = 0x80000004
	EFIRuntimeDriver       Type = 0x80000005
	EFIGPT                 Type = 0x80000006
	EFIAction              Type = 0x80000007
	EFIFirmwareBlob        Type = 0x80000008
	EFIHandoffTables       Type = 0x80000009
	EFIFirmwareBlob2       Type = 0x8000000a
	EFIHandoffTables2      Type = 0x8000000b
	EFIVariableBoot2       Type = 0x8000000c
	EFIGPT2                Type = 0x8000000d
	EFIHCRTM               Type = 0x80000010
	EFIVariableAuthority   Type = 0x800000e0
	EFISPDMFirmwareBlob    Type = 0x800000e1
	EFISPDMFirmwareConfig  Type = 0x800000e2
	EFISPDMDevicePolicy    Type = 0x800000e3
	EFISPDMDeviceAuthority Type = 0x800000e4
)

// String gives the profile's name for the type, as far as virt-attest knows it.
func (t Type) String() string {
	if k, ok := kinds[t]; ok {
		return k.name
	}
	return fmt.Sprintf("event type %#x", uint32(t))
}

// kind is what the profile says about a type.
type kind struct {
	name string
	pcrs uint32 // bits of the PCRs it may be measured into
	data bool   // the digest is that of the event data
}

func in(pcrs ...uint) uint32 {
	var m uint32
	for _, p := range pcrs {
		m |= 1 << p
	}
	return m
}

const anyPCR = 1<<24 - 1

var kinds = map[Type]kind{
	PostCode:               {"EV_POST_CODE", in(0), false},
	NoAction:               {"EV_NO_ACTION", anyPCR, false},
	Separator:              {"EV_SEPARATOR", anyPCR, true},
	Action:                 {"EV_ACTION", in(1, 2, 3, 4, 5, 6), true},
	EventTag:               {"EV_EVENT_TAG", anyPCR, false},
	CRTMContents:           {"EV_S_CRTM_CONTENTS", in(0), false},
	CRTMVersion:            {"EV_S_CRTM_VERSION", in(0), true},
	CPUMicrocode:           {"EV_CPU_MICROCODE", in(1), false},
	PlatformConfigFlags:    {"EV_PLATFORM_CONFIG_FLAGS", in(1), true},
	TableOfDevices:         {"EV_TABLE_OF_DEVICES", in(1), true},
	CompactHash:            {"EV_COMPACT_HASH", in(4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), false},
	IPL:                    {"EV_IPL", in(4, 5, 8, 9, 10, 11, 12, 13, 14, 15), false},
	IPLPartitionData:       {"EV_IPL_PARTITION_DATA", in(4, 5), true},
	NonhostCode:            {"EV_NONHOST_CODE", in(0, 2), false},
	NonhostConfig:          {"EV_NONHOST_CONFIG", in(1, 3), false},
	NonhostInfo:            {"EV_NONHOST_INFO", in(0), true},
	OmitBootDeviceEvents:   {"EV_OMIT_BOOT_DEVICE_EVENTS", in(4), true},
	PostCode2:              {"EV_POST_CODE2", in(0), false},
	EFIVariableDriver:      {"EV_EFI_VARIABLE_DRIVER_CONFIG", in(1, 3, 5, 7), true},
	EFIVariableBoot:        {"EV_EFI_VARIABLE_BOOT", in(1, 5), false},
	EFIBootApplication:     {"EV_EFI_BOOT_SERVICES_APPLICATION", in(2, 4), false},
	EFIBootDriver:          {"EV_EFI_BOOT_SERVICES_DRIVER", in(0, 2), false},
	EFIRuntimeDriver:       {"EV_EFI_RUNTIME_SERVICES_DRIVER", in(0, 2), false},
	EFIGPT:                 {"EV_EFI_GPT_EVENT", in(5), true},
	EFIAction:              {"EV_EFI_ACTION", in(0, 1, 2, 3, 4, 5, 6, 7), true},
	EFIFirmwareBlob:        {"EV_EFI_PLATFORM_FIRMWARE_BLOB", in(0, 2), false},
	EFIHandoffTables:       {"EV_EFI_HANDOFF_TABLES", in(1), false},
	EFIFirmwareBlob2:       {"EV_EFI_PLATFORM_FIRMWARE_BLOB2", in(0, 2), false},
	EFIHandoffTables2:      {"EV_EFI_HANDOFF_TABLES2", in(1), false},
	EFIVariableBoot2:       {"EV_EFI_VARIABLE_BOOT2", in(1), true},
	EFIGPT2:                {"EV_EFI_GPT_EVENT2", in(5), true},
	EFIHCRTM:               {"EV_EFI_HCRTM_EVENT", in(0), false},
	EFIVariableAuthority:   {"EV_EFI_VARIABLE_AUTHORITY", in(7), true},
	EFISPDMFirmwareBlob:    {"EV_EFI_SPDM_FIRMWARE_BLOB", in(2), false},
	EFISPDMFirmwareConfig:  {"EV_EFI_SPDM_FIRMWARE_CONFIG", in(3), false},
	EFISPDMDevicePolicy:    {"EV_EFI_SPDM_DEVICE_POLICY", in(7), true},
	EFISPDMDeviceAuthority: {"EV_EFI_SPDM_DEVICE_AUTHORITY", in(7), true},
}
