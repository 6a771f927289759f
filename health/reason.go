package health

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
)

// brief words an error so that the same cause always gives the same line: without the ports of this side, which change with each probe.
func brief(err error) string {
	text := err.Error()
	var op *net.OpError
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		text = "no answer in time"
	case errors.As(err, &op):
		to := ""
		if op.Addr != nil {
			to = " " + op.Addr.String()
		}
		text = op.Op + to + ": " + op.Err.Error()
	}
	return strings.Join(strings.Fields(text), " ")
}
