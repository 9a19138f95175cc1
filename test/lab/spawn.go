package lab

import (
	"os/exec"
	"runtime"
	"syscall"
)

// spawner starts children that must not outlive this process. PR_SET_PDEATHSIG speaks of
// the thread that made the child, so all come from one thread that lasts until close.
type spawner struct {
	work chan func()
	done chan struct{}
}

func newSpawner() *spawner {
	s := &spawner{work: make(chan func()), done: make(chan struct{})}
	go s.run()
	return s
}

func (s *spawner) run() {
	runtime.LockOSThread() // never unlocked: the thread ends here, with the spawner
	defer close(s.done)
	for f := range s.work {
		f()
	}
}

// start starts cmd as the leader of its own session, so that a terminal's Ctrl-C does not
// reach it before Close does.
func (s *spawner) start(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	result := make(chan error)
	s.work <- func() { result <- cmd.Start() }
	return <-result
}

// close ends the thread. Its children must have ended before.
func (s *spawner) close() {
	close(s.work)
	<-s.done
}
