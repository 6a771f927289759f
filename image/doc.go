// Package image makes what targets boot from: a vDisk, which is a raw disk that lives over iSCSI, with its kernel and
// initramfs beside it.
//
// The pieces of the initramfs stand in vdisk/initramfs as plain scripts for Debian's initramfs-tools. BuildVDisk puts them
// into a new Debian; docs/target.md says how a person puts them into an image of their own.
package image
