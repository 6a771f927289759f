package peers

import (
	"bytes"
	"context"
	"log"
	"log/slog"
)

// quietLog returns what memberlist logs to. What it calls errors are peers that do not answer, which our own log says once: nothing of it
// is louder than debug.
func quietLog(to *slog.Logger) *log.Logger {
	return log.New(debugWriter{to}, "", 0)
}

type debugWriter struct{ to *slog.Logger }

// Write implements io.Writer.
func (w debugWriter) Write(line []byte) (int, error) {
	if w.to.Enabled(context.Background(), slog.LevelDebug) {
		w.to.Debug("memberlist", "line", string(bytes.TrimSpace(line)))
	}
	return len(line), nil
}
