package localapi

import (
	"net/url"
	"testing"
)

// FuzzTraceRequest reads any query as the request for a trace: its addresses are bounded and all of them are such.
func FuzzTraceRequest(f *testing.F) {
	f.Add("peer=b.example&history=true&follow=true&address=192.0.2.1&address=2001:db8::1")
	f.Add("address=192.0.2.256")
	f.Add("address=&peer=%00")
	f.Fuzz(func(t *testing.T, query string) {
		q, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		request, err := readTraceRequest(q)
		if err != nil {
			return
		}
		if len(request.Addresses) > maxAddresses || len(request.Addresses) != len(q["address"]) {
			t.Fatalf("%q is read as %+v", query, request)
		}
		for _, a := range request.Addresses {
			if !a.IsValid() {
				t.Fatalf("%q is read as %+v", query, request)
			}
		}
	})
}
