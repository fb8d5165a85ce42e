package pkcs11

import (
	"encoding/hex"
	"fmt"
	"net/url"
	"strings"
)

// name is what a URI says of a key.
type name struct {
	token string
	id    []byte
}

// scheme is that of RFC 7512.
const scheme = "pkcs11:"

// String returns the URI (RFC 7512 2.3).
func (n name) String() string {
	var id strings.Builder
	for _, b := range n.id {
		fmt.Fprintf(&id, "%%%02X", b)
	}
	return scheme + "token=" + url.PathEscape(n.token) + ";id=" + id.String() + ";type=private"
}

// parseURI reads the form of String, and nothing else of what RFC 7512 allows: these URIs are our own.
func parseURI(uri string) (name, error) {
	var n name
	rest, ok := strings.CutPrefix(uri, scheme)
	parts := strings.Split(rest, ";")
	if !ok || len(parts) != 3 || parts[2] != "type=private" {
		return name{}, fmt.Errorf("%.200q is not pkcs11:token=...;id=...;type=private: %w", uri, ErrKey)
	}
	token, okToken := strings.CutPrefix(parts[0], "token=")
	id, okID := strings.CutPrefix(parts[1], "id=")
	label, err := url.PathUnescape(token)
	if !okToken || !okID || err != nil {
		return name{}, fmt.Errorf("%.200q names no token and key: %w", uri, ErrKey)
	}
	octets, err := hex.DecodeString(strings.ReplaceAll(id, "%", ""))
	if err != nil || len(octets) == 0 {
		return name{}, fmt.Errorf("%.200q has the key id %.100q: %w", uri, id, ErrKey)
	}
	n.token, n.id = label, octets
	if n.String() != uri {
		return name{}, fmt.Errorf("%.200q is not in the form of %q: %w", uri, n, ErrKey)
	}
	return n, nil
}
