// Package enrolment measures what certificates cost a controller, beside the cryptography that they cannot do without, and
// how a fleet comes back after an outage. Its benchmarks run a whole controller with its store in this process, and the
// machines as well: a figure is what both ends need together. Run them with a fixed number:
//
//	go test -run '^$' -bench 'Join|Renew' -benchtime 1000x ./e2e/bench/enrolment
//	go test -run '^$' -bench Storm -benchtime 1x ./e2e/bench/enrolment -args -nodes 10000
//
// Figures are processor time and hold within one run only. It asserts nothing about them.
package enrolment
