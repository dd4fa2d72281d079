package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// This file is the programs that the tests start, and how they wait for them.

// find returns where a program of Prometheus is, or says what to run.
func find(t *testing.T, program string) string {
	t.Helper()
	path, err := filepath.Abs("../../.cache/prometheus-" + prometheusVersion(t) + "/" + program)
	require.NoError(t, err)
	require.FileExists(t, path, "run scripts/install-prometheus.sh")
	return path
}

// start runs a program until the test is over. The context that it returns
// ends before, with a cause, if the program does.
func start(ctx context.Context, t *testing.T, program string, args ...string) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancelCause(ctx)
	var output bytes.Buffer // read once the program has ended
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, cmd.Start())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		err := cmd.Wait()
		cancel(fmt.Errorf("%s has ended: %v; it said:\n%s", program, err, &output))
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
			t.Errorf("%s did not end within 10 s of SIGTERM; it said:\n%s", program, &output)
		}
	})
	return ctx
}

// eventually calls f until it returns nil. It fails the test when ctx ends,
// with what f said last.
func eventually(ctx context.Context, t *testing.T, f func() error) {
	t.Helper()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%v: %v", context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}

// freeAddr is an address on loopback that nobody listens on.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}
