package wire

// limitAnnouncements bounds the announcements of one notify.
const limitAnnouncements = 64

// AuthAnnouncement is one way to authenticate that the sender of SUPPORTED_AUTH_METHODS accepts (RFC 9593 3.2). With two
// octets there is only the method, with three there is a link to a CA as well, with more an AlgorithmIdentifier.
//
//	+--------+--------+-----------+-------------------------
//	| length | method | cert link |  AlgorithmIdentifier ...
//	+--------+--------+-----------+-------------------------
type AuthAnnouncement struct {
	Method AuthMethod
	// Linked tells that there is a cert link: methods with certificates have one.
	Linked bool
	// Link is the place, from 1, of the CA in the CERTREQ payloads that the announcement is about; 0 is every CA.
	Link byte
	// Algorithm is the DER of an AlgorithmIdentifier, of method 14 only.
	Algorithm []byte
}

// ParseAuthAnnouncements reads the data of a SUPPORTED_AUTH_METHODS notify. Methods that have no name here are kept: they
// harm nobody. No data is a list without entries: the sender will say more in IKE_INTERMEDIATE.
func ParseAuthAnnouncements(data []byte) ([]AuthAnnouncement, error) {
	var list []AuthAnnouncement
	for at := 0; at < len(data); {
		length := int(data[at])
		if length < 2 || length > len(data)-at {
			return nil, syntaxf(at, "announcement of %d octets in SUPPORTED_AUTH_METHODS with %d left", length, len(data)-at)
		}
		if len(list) == limitAnnouncements {
			return nil, syntaxf(at, "more than %d announcements in SUPPORTED_AUTH_METHODS", limitAnnouncements)
		}
		a := AuthAnnouncement{Method: AuthMethod(data[at+1]), Linked: length > 2}
		if a.Linked {
			a.Link, a.Algorithm = data[at+2], data[at+3:at+length]
		}
		list = append(list, a)
		at += length
	}
	return list, nil
}

// AppendAuthAnnouncements writes the data of a SUPPORTED_AUTH_METHODS notify. An AlgorithmIdentifier has at most 252
// octets.
func AppendAuthAnnouncements(dst []byte, list []AuthAnnouncement) []byte {
	for _, a := range list {
		if !a.Linked {
			dst = append(dst, 2, byte(a.Method))
			continue
		}
		dst = append(dst, byte(3+len(a.Algorithm)), byte(a.Method), a.Link)
		dst = append(dst, a.Algorithm...)
	}
	return dst
}
