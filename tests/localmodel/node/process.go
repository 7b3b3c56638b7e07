package node

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// A Process runs in a container.
type Process struct {
	PID     int    // as the node sees it
	Program string // its name, at most 15 bytes of it (proc(5), comm)
	Parent  string // its parent's
}

// Freeze stops every process of the container where it is, and what is started in it.
func (c *Container) Freeze() error { return c.freeze(true, syscall.SIGSTOP) }

// Thaw lets a frozen container go on.
func (c *Container) Thaw() error { return c.freeze(false, syscall.SIGCONT) }

func (c *Container) freeze(frozen bool, sig syscall.Signal) error {
	c.starting.Lock()
	defer c.starting.Unlock()
	c.frozen = frozen
	_, err := c.Signal(sig, func(Process) bool { return true })
	return err
}

// Signal sends a signal to those processes of the container that it is meant
// for, and tells how many they were.
func (c *Container) Signal(sig syscall.Signal, meant func(Process) bool) (sent int, err error) {
	processes, err := c.Processes()
	if err != nil {
		return 0, err
	}
	for _, p := range processes {
		if !meant(p) {
			continue
		}
		switch err := syscall.Kill(p.PID, sig); {
		case err == nil:
			sent++
		case !errors.Is(err, syscall.ESRCH):
			return sent, fmt.Errorf("cannot signal %s: %w", p.Program, err)
		}
	}
	return sent, nil
}

// Processes are all processes of the container.
func (c *Container) Processes() ([]Process, error) {
	space, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", c.PID))
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var found []Process
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if of, err := os.Readlink("/proc/" + entry.Name() + "/ns/pid"); err != nil || of != space {
			continue
		}
		program, parent, err := stat(pid)
		if err != nil {
			continue // it has ended
		}
		above, _, _ := stat(parent)
		found = append(found, Process{PID: pid, Program: program, Parent: above})
	}
	return found, nil
}

// stat reads a process's name and parent from proc(5).
func stat(pid int) (program string, parent int, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", 0, err
	}
	open, end := bytes.IndexByte(data, '('), bytes.LastIndexByte(data, ')')
	if open < 0 || end < open {
		return "", 0, fmt.Errorf("cannot read the state of process %d", pid)
	}
	fields := strings.Fields(string(data[end+1:])) // state, parent, ...
	if len(fields) > 1 {
		parent, err = strconv.Atoi(fields[1])
	}
	return string(data[open+1 : end]), parent, err
}
