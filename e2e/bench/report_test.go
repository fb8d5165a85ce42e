package main

import (
	"strings"
	"testing"
	"time"
)

func TestSummarizeTakesTheMedian(t *testing.T) {
	burst := func(milliseconds int) sample {
		return sample{both: time.Duration(milliseconds) * time.Millisecond, wall: time.Second, n: 100}
	}
	c := summarize([]sample{burst(90), burst(30), burst(40)})
	if c.CPU != 400 || c.Min != 300 || c.Max != 900 || c.PerCore != 2500 || c.PerSecond != 100 {
		t.Errorf("got %+v", c)
	}
}

func TestReportPrintsWhatWasMeasured(t *testing.T) {
	r := report{Handshakes: []handshakeRow{
		{Name: "all", Floor: 100, Memory: &cost{CPU: 200, Min: 125}, UDP: &cost{CPU: 400, Min: 400}, Charon: &cost{CPU: 1000, Min: 1000}},
		{Name: "alone", Floor: 100, Memory: &cost{CPU: 200, Min: 200}},
	}}
	text := r.text()
	for _, want := range []string{"50%       80%", "5.0x      8.0x", "2.5x      2.5x", "alone"} {
		if !strings.Contains(text, want) {
			t.Errorf("the report lacks %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "Child SAs") || strings.Contains(text, "Floods") {
		t.Errorf("the report tells of what was not measured:\n%s", text)
	}
}
