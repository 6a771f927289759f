package tftp

import (
	"context"
	"io"
)

// ServeForTest is one transfer without a network.
func ServeForTest(ctx context.Context, s *Server, name string, rf io.ReaderFrom) error {
	return s.serve(ctx, name, rf)
}
