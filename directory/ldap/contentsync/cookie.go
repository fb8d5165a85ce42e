package contentsync

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// A Cookie names a state of the server's content (RFC 4533 2.1.2). It is opaque: what is read out of one decides when to
// look closer, never what is true.
type Cookie string

// csns reads the change sequence numbers of an OpenLDAP cookie, "rid=001,sid=002,csn=TIME#COUNT#SID#MOD;...", by the
// server that they are of; nil when it is not one.
func (c Cookie) csns() map[string]string {
	for field := range strings.SplitSeq(string(c), ",") {
		if list, ok := strings.CutPrefix(field, "csn="); ok {
			return parseCSNs(strings.Split(list, ";"))
		}
	}
	return nil
}

// parseCSNs sorts change sequence numbers by server identifier; nil when there is none, or one is malformed.
func parseCSNs(list []string) map[string]string {
	by := map[string]string{}
	for _, csn := range list {
		// 20260101120000.123456Z#000000#000#000000: fields of fixed width, so that the order of texts is that of time.
		parts := strings.Split(csn, "#")
		if len(csn) != 40 || len(parts) != 4 || len(parts[0]) != 22 || len(parts[1]) != 6 || len(parts[2]) != 3 {
			return nil
		}
		if csn > by[parts[2]] {
			by[parts[2]] = csn
		}
	}
	if len(by) == 0 {
		return nil
	}
	return by
}

// Reaches says whether content with this cookie has everything up to the given values of contextCSN. False may also mean
// that it cannot be told.
//
// Of 389 Directory Server the values are the counters of its root DSE, of which one is "lastchangenumber=N".
func (c Cookie) Reaches(contextCSN []string) bool {
	for _, counter := range contextCSN {
		if last, ok := strings.CutPrefix(counter, "lastchangenumber="); ok {
			have, known := c.changeNumber()
			want, err := strconv.ParseUint(last, 10, 64)
			return known && err == nil && have >= want
		}
	}
	have, want := c.csns(), parseCSNs(contextCSN)
	if have == nil || want == nil {
		return false
	}
	for sid, csn := range want {
		if have[sid] < csn {
			return false
		}
	}
	return true
}

// CookieOf is a cookie that reaches the given values of contextCSN and no further.
func CookieOf(contextCSN []string) Cookie { return Cookie("csn=" + strings.Join(contextCSN, ";")) }

// Behind says whether content with this cookie lacks changes that content with the other one has. False may also mean that
// it cannot be told.
func (c Cookie) Behind(other Cookie) bool {
	have, want := c.csns(), other.csns()
	if have == nil {
		return false
	}
	for sid, csn := range want {
		if have[sid] < csn {
			return true
		}
	}
	return false
}

// changeNumber reads the number that ends a cookie of 389 Directory Server, "SERVER#IDENTITY:BASE:FILTER#N".
func (c Cookie) changeNumber() (n uint64, ok bool) {
	text := string(c)
	at := strings.LastIndexByte(text, '#')
	if at < 0 || strings.IndexByte(text, '#') == at {
		return 0, false
	}
	n, err := strconv.ParseUint(text[at+1:], 10, 64)
	return n, err == nil
}

// merge returns the cookie after next has come. A provider of several names in the cookie of one change only the server
// where the change was made; what is known of the others stays.
func (c Cookie) merge(next Cookie) Cookie {
	if next == "" {
		return c
	}
	old, now := c.csns(), next.csns()
	if old == nil || now == nil {
		return next
	}
	for sid, csn := range now {
		old[sid] = max(old[sid], csn)
	}
	if maps.Equal(old, now) {
		return next
	}
	head, _, _ := strings.Cut(string(next), "csn=")
	list := make([]string, 0, len(old))
	for _, sid := range slices.Sorted(maps.Keys(old)) {
		list = append(list, old[sid])
	}
	return Cookie(head + "csn=" + strings.Join(list, ";"))
}
