package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"charmhub.io/postgresql-k8s/tests/localmodel"
)

// charmFile is where a charm is packed.
func charmFile(name string) string { return fmt.Sprintf("dist/%s_%s.charm", name, runtime.GOARCH) }

// prepare ends what an earlier demo has left, and builds what is missing.
func (s *stage) prepare() error {
	s.say("First, what it takes: the packed charms, the workload image's files, and the local model.")
	news := &news{stage: s, last: time.Now()}
	defer news.every(15 * time.Second)()
	group, ctx := errgroup.WithContext(s.ctx)
	group.Go(func() error {
		defer news.begin("the image")()
		return s.build(ctx, news, "image/build.sh", "--rootfs", image)
	})
	group.Go(func() error { return s.compile(ctx, news) })
	if err := group.Wait(); err != nil {
		return errors.Join(s.ctx.Err(), err)
	}
	_, err := s.ask("down") // only now is there a program that can do it
	return err
}

// compile builds all programs; the Go tool does again only what has changed.
func (s *stage) compile(ctx context.Context, news *news) error {
	for _, step := range []struct {
		what string
		args []string
	}{
		{"the program localmodel", []string{"build", "-buildvcs=false", "-o", s.cli, "./tests/localmodel/cmd/localmodel"}},
		{"the charm", []string{"run", "./tools/packcharm", "-arch", runtime.GOARCH}},
		{"the client's charm", []string{"run", "./tools/packcharm", "-arch", runtime.GOARCH, "-o", charmFile("client"), "tests/charms/client"}},
	} {
		done := news.begin(step.what)
		if err := s.build(ctx, news, "go", step.args...); err != nil {
			return err
		}
		done()
	}
	defer news.begin("Pebble")()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	bin := filepath.Join(modelDir, "bin") // where localmodel up looks
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return err
	}
	_, err := localmodel.BuildPrograms(bin)
	return err
}

// news tells how the preparations go: the lines that commands print, and if they
// print none for a while, what they are at.
type news struct {
	stage *stage

	mu   sync.Mutex
	rest []byte // of a line
	at   []string
	last time.Time
}

// Write implements io.Writer.
func (n *news) Write(data []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.rest = append(n.rest, data...)
	for {
		line, rest, whole := bytes.Cut(n.rest, []byte("\n"))
		if !whole {
			return len(data), nil
		}
		n.tell(string(line))
		n.rest = rest
	}
}

func (n *news) tell(line string) {
	n.last = time.Now()
	fmt.Printf("[%5.1f s]   %s\n", time.Since(n.stage.start).Seconds(), line)
}

// begin notes what is being made; the function that it returns, that it is there.
func (n *news) begin(what string) func() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.at = append(n.at, what)
	start := time.Now()
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.at = slices.DeleteFunc(n.at, func(other string) bool { return other == what })
		n.tell(fmt.Sprintf("%s: %.1f s", what, time.Since(start).Seconds()))
	}
}

// every breaks a silence of that length, until the function it returns is called.
func (n *news) every(silence time.Duration) func() {
	ticker, ended := time.NewTicker(time.Second), make(chan struct{})
	go func() {
		for {
			select {
			case <-ended:
				return
			case <-ticker.C:
			}
			n.mu.Lock()
			if time.Since(n.last) > silence && len(n.at) > 0 {
				n.tell("still at work: " + strings.Join(n.at, ", "))
			}
			n.mu.Unlock()
		}
	}()
	return func() {
		ticker.Stop()
		close(ended)
	}
}
