//go:build !ikebug

package suite

import "github.com/bailiwick-net/bailiwick/node/ike/wire"

// impairedOutside are payloads before the encrypted one: in this build none.
func impairedOutside(*wire.Header) []byte { return nil }
