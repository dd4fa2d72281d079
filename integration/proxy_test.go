package integration

import (
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// delayProxy passes TCP connections on to a server. Everything arrives later
// by the delay in either direction, the end of the connection too: it is what
// a network does, and what makes a close that is on its way invisible.
func delayProxy(t *testing.T, server string, delay time.Duration) (addr string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			upstream, err := net.Dial("tcp", server)
			if err != nil {
				_ = client.Close()
				continue
			}
			all.Go(func() { delayed(upstream, client, delay) })
			all.Go(func() { delayed(client, upstream, delay) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		all.Wait()
	})
	return l.Addr().String()
}

// packet is what was read at one time; nil data is the end.
type packet struct {
	data []byte
	due  time.Time
}

// delayed copies from src to dst, later.
func delayed(dst, src net.Conn, delay time.Duration) {
	queue := make(chan packet, 64)
	go func() {
		defer close(queue)
		for {
			buf := make([]byte, 16<<10)
			n, err := src.Read(buf)
			queue <- packet{buf[:n], time.Now().Add(delay)}
			if err != nil {
				return
			}
		}
	}()
	for p := range queue {
		time.Sleep(time.Until(p.due))
		if len(p.data) > 0 {
			_, _ = dst.Write(p.data)
		}
	}
	_ = dst.Close()
	_ = src.Close()
}
