// Package predefined holds the three policies that every fleet starts with, by the names and in the shape of the Windows
// ones, with offers of today.
//
// Its invariant: the documents decode and validate without a finding; a test holds that. None of them is linked to a
// container. It leaves the language to policies.
package predefined

import (
	_ "embed"

	"github.com/bailiwick-net/bailiwick/policies"
)

// The names of the policies.
const (
	Client       = "Client (Respond Only)"
	Server       = "Server (Request Security)"
	SecureServer = "Secure Server (Require Security)"
)

//go:embed predefined.yaml
var text []byte

// Text returns the documents as YAML, which is also an example of the language.
func Text() []byte { return append([]byte(nil), text...) }

// Documents returns the documents.
func Documents() policies.Documents {
	d, err := policies.Decode("predefined.yaml", text)
	if err != nil {
		panic("the predefined policies are part of the program: " + err.Error())
	}
	return d
}
