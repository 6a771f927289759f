// Package streamer joins targets with the streamers that hold their vDisks. It has two halves that run on different machines.
//
// The Director runs on an appliance. It takes iSCSI logins at the floating address, picks a streamer for each, passes the login on
// and forwards bytes. It holds a login while no streamer lives, and closes a session at once when its streamer dies, so that
// the initiator logs in again, to another replica.
//
// The Agent runs on a streamer. It finds replicas in a Store, lets an Engine (an existing iSCSI target program) serve them
// read-only under the same identity as every other streamer, announces them, and moves its targets away before it stops.
package streamer
