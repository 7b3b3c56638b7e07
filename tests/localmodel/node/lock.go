package node

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// held are the locks of this process: closing one would give it up.
var held []*os.File

// Lock takes a directory for this process until it ends.
func Lock(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	file, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	switch err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); {
	case errors.Is(err, syscall.EWOULDBLOCK):
		pid, _ := lockedBy(dir)
		return errors.Join(fmt.Errorf("%s is in use by process %d", dir, pid), file.Close())
	case err != nil:
		return errors.Join(fmt.Errorf("cannot lock %s: %w", dir, err), file.Close())
	}
	held = append(held, file)
	if err := file.Truncate(0); err != nil {
		return err
	}
	_, err = fmt.Fprint(file, os.Getpid())
	return err
}

// lockedBy tells whether a directory is locked, and by which process; that is 0
// as long as it has not said so.
func lockedBy(dir string) (pid int, locked bool) {
	file, err := os.Open(filepath.Join(dir, "lock"))
	if err != nil {
		return 0, false
	}
	defer file.Close()
	if syscall.Flock(int(file.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) == nil {
		return 0, false // closing the file gives the lock back
	}
	text, _ := io.ReadAll(file)
	pid, _ = strconv.Atoi(string(text))
	return max(pid, 0), true
}

// Evict ends the process that has locked a directory, if there is one: it is
// asked to end, and killed if it has not after the given time.
func Evict(dir string, patience time.Duration) error {
	start := time.Now()
	for pid, locked := lockedBy(dir); locked; pid, locked = lockedBy(dir) {
		sig := syscall.SIGTERM
		switch late := time.Since(start) - patience; {
		case late > 5*time.Second:
			return fmt.Errorf("cannot end process %d, which uses %s", pid, dir)
		case late > 0:
			sig = syscall.SIGKILL
		}
		if pid > 0 {
			if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("cannot end process %d, which uses %s: %w", pid, dir, err)
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	return nil
}
