package ikeload

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// CPU is the processor time that a process has used so far, in user space and in the kernel, all its threads together.
// pid 0 is this process. Other work on the machine does not count, so that a busy machine distorts it little.
func CPU(pid int) (time.Duration, error) {
	clock := int32(unix.CLOCK_PROCESS_CPUTIME_ID)
	if pid != 0 {
		clock = ^int32(pid)<<3 | 2 // CPUCLOCK_SCHED of a process, as clock_getcpuclockid(3) makes it
	}
	return read(clock, fmt.Sprintf("process %d", pid))
}

// threadCPU is the processor time of the calling thread.
func threadCPU() (time.Duration, error) { return read(unix.CLOCK_THREAD_CPUTIME_ID, "this thread") }

func read(clock int32, whose string) (time.Duration, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(clock, &t); err != nil {
		return 0, fmt.Errorf("read the processor time of %s: %w", whose, err)
	}
	return time.Duration(t.Nano()), nil
}
