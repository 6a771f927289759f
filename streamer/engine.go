package streamer

import (
	"context"

	"everboot/site"
)

// Engine drives a program that serves files over iSCSI. Its methods are called by one goroutine.
type Engine interface {
	// Start runs the program and returns when it serves exactly these exports. It takes no login before that. The channel
	// yields one error when the program has ended; the end of ctx ends it.
	Start(ctx context.Context, exports []Export) (<-chan error, error)
	// Export makes a running program serve exactly these exports. The sessions of one that is no longer among them end.
	Export(ctx context.Context, exports []Export) error
	// Sessions lists who is logged in.
	Sessions(ctx context.Context) ([]EngineSession, error)
	// Disconnect ends a session, if it has not ended yet. Its initiator logs in again.
	Disconnect(ctx context.Context, s EngineSession) error
}

// Export is a file to be served read-only under a name. Everything that an initiator sees of it must follow from the
// name, so that it finds the same disk on every streamer.
type Export struct {
	Target site.TargetName
	Path   string
}

// EngineSession is a login at an engine.
type EngineSession struct {
	Target     string // IQN
	Initiator  string // IQN
	Remote     string // address, without port
	Session    int    // the engine's numbers
	Connection int
}
