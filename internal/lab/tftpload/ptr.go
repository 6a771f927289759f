package tftpload

import "unsafe"

// ptr is where the kernel finds the bytes.
func ptr(p []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(p))) }
