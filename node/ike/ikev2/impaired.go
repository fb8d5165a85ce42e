//go:build !ikebug

package ikev2

import "github.com/bailiwick-net/bailiwick/node/ike/wire"

// impaired are the payloads of an own message as they go out: in this build as they are.
func impaired(payloads []wire.Payload) []wire.Payload { return payloads }
