package imalog

const (
	maxKept  = 4        // places kept open at a time: verifiers that read at their own pace
	readSize = 16 << 10 // bytes asked of the kernel at a time
)
