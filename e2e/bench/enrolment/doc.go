// Command enrolment measures what certificates cost a controller, beside the cryptography that they cannot do without, and
// how a fleet comes back after an outage.
//
// The controller runs in this process with its store, which writes to the disk, and the machines in another one, so that
// processor time is the controller's alone: with its TLS, HTTP/2, store, log and garbage collection, without what the machines
// need. The floor is measured on one thread in the same run, part by part, and the parts are printed: it holds only what a
// certificate needs of asymmetric cryptography on the side of the controller. A bare server of gRPC with that cryptography and
// nothing else is measured as well, for what remains between the two. Figures hold within one run only.
package main
