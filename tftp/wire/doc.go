// Package wire is TFTP without sockets, clocks and files: the packets (RFC 1350, with the options of RFC 2347, 2348, 2349 and 7440), the
// server's side of one transfer as a machine, and the messages by which appliances tell each other of their transfers.
package wire
