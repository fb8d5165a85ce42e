package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/bailiwick-net/bailiwick/node/localapi"
)

// sas shows the path MTU of each SA, and where it comes from.
func TestPathMTUIsShown(t *testing.T) {
	a := localapi.Associations{Children: []localapi.Child{
		{In: "00000001", Current: true, PathMTU: 1500, PathMTUSource: "link"},
		{In: "00000002", Current: true, PathMTU: 1400, PathMTUSource: "icmp"},
		{In: "00000003", Current: true, PathMTUSource: "unknown"},
	}}
	var table strings.Builder
	printAssociations(&table, a)
	for spi, want := range map[string]string{"ESP IN": "PATH MTU", "00000001": "1500 link", "00000002": "1400 icmp", "00000003": "unknown"} {
		found := false
		for line := range strings.Lines(table.String()) {
			if strings.HasPrefix(line, spi) {
				found = strings.Contains(line, "\t"+want+"\t")
			}
		}
		if !found {
			t.Errorf("the line of %s lacks %q:\n%s", spi, want, table.String())
		}
	}
	b, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	if want := `"pathMTU":1400,"pathMTUSource":"icmp"`; !strings.Contains(string(b), want) {
		t.Errorf("the JSON lacks %s: %s", want, b)
	}
}
