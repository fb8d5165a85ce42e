// Package kernelesp runs the datapath that leaves ESP to the kernel where there is such a kernel: in a guest.
//
// Its invariant: the very binaries that this checkout makes run in the guest, and what they say there is what the test
// says. It leaves what is right to the packages whose tests it takes there.
package kernelesp
