package command

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestParts(t *testing.T) {
	if got, err := Parts("udp,memory", "memory", "udp", "flood"); err != nil || !slices.Equal(got, []string{"udp", "memory"}) {
		t.Errorf("got %q, %v", got, err)
	}
	for _, bad := range []string{"", "udp,", "udp,floods", " udp"} {
		if got, err := Parts(bad, "memory", "udp", "flood"); err == nil || !strings.Contains(err.Error(), "memory, udp, flood") {
			t.Errorf("%q gives %q, %v; want an error with what there is", bad, got, err)
		}
	}
}

func TestWriteJSON(t *testing.T) {
	path := filepath.Join(t.TempDir(), "figures.json")
	if err := WriteJSON(path, []int{1}); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "[\n  1\n]\n" {
		t.Errorf("the file holds %q, %v", text, err)
	}
	if err := WriteJSON("", nil); err != nil {
		t.Error(err)
	}
}
