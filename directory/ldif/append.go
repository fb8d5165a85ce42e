package ldif

import (
	"encoding/base64"
	"strings"

	"github.com/bailiwick-net/bailiwick/directory"
)

// lineLength is where Append folds, as the tools of OpenLDAP do.
const lineLength = 76

// Append writes an entry as one content record with the empty line that ends it. Values that RFC 2849 does not call
// SAFE-STRING are written in base64.
func Append(dst []byte, e directory.Entry) []byte {
	dst = appendLine(dst, "dn", e.DN)
	for _, a := range e.Attributes {
		for _, v := range a.Values {
			dst = appendLine(dst, a.Name, v)
		}
	}
	return append(dst, '\n')
}

func appendLine(dst []byte, name, value string) []byte {
	line := name + ": " + value
	switch {
	case value == "":
		line = name + ":"
	case !safe(value):
		line = name + ":: " + base64.StdEncoding.EncodeToString([]byte(value))
	}
	for len(line) > lineLength {
		dst = append(append(dst, line[:lineLength]...), '\n', ' ')
		line = line[lineLength:]
	}
	return append(append(dst, line...), '\n')
}

// safe tells a SAFE-STRING; a space at the end counts as unsafe (RFC 2849, note 8).
func safe(v string) bool {
	if strings.IndexByte(" :<", v[0]) >= 0 || v[len(v)-1] == ' ' {
		return false
	}
	for i := 0; i < len(v); i++ {
		if c := v[i]; c == 0 || c == '\n' || c == '\r' || c >= 0x80 {
			return false
		}
	}
	return true
}
