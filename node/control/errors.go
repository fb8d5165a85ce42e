package control

import (
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var (
	// ErrUnreachable says that no conversation with the controller came about.
	ErrUnreachable = errors.New("controller is unreachable")
	// ErrRefused says that the controller answered and refused.
	ErrRefused = errors.New("controller refused")
)

// explain turns a gRPC error into one that says what was attempted and whose fault it is.
func explain(attempt string, err error) error {
	s, ok := status.FromError(err)
	if !ok {
		return fmt.Errorf("%s: %w", attempt, err)
	}
	switch s.Code() {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return fmt.Errorf("%s: %w: %s", attempt, ErrUnreachable, s.Message())
	default:
		return fmt.Errorf("%s: %w (%s): %s", attempt, ErrRefused, s.Code(), s.Message())
	}
}
