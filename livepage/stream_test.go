package livepage

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease"
)

// viewer is somebody who looks: it keeps what a stream sends.
type viewer struct {
	mu        sync.Mutex
	header    http.Header
	text      strings.Builder // guarded by mu
	deadline  time.Time       // guarded by mu
	fails     error           // of each write
	unflushed bool            // it cannot flush
	code      int
}

func (v *viewer) Header() http.Header  { return v.header }
func (v *viewer) WriteHeader(code int) { v.code = code }
func (v *viewer) Write(p []byte) (int, error) {
	if v.fails != nil {
		return 0, v.fails
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.text.Write(p)
}

func (v *viewer) FlushError() error {
	if v.unflushed {
		return errors.ErrUnsupported
	}
	return nil
}

func (v *viewer) SetWriteDeadline(t time.Time) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.deadline = t
	return nil
}

func (v *viewer) until() time.Time {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.deadline
}

// events are those that came, each with its parts.
func (v *viewer) events(t *testing.T) (kinds []string, parts []map[string]string) {
	t.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	for event := range strings.SplitSeq(strings.TrimSuffix(v.text.String(), "\n\n"), "\n\n") {
		kind, data, ok := strings.Cut(event, "\nretry: 1000\ndata: ")
		require.True(t, ok, event)
		require.NotContains(t, data, "\n")
		of := map[string]string{}
		require.NoError(t, json.Unmarshal([]byte(data), &of))
		kinds, parts = append(kinds, strings.TrimPrefix(kind, "event: ")), append(parts, of)
	}
	return kinds, parts
}

// watches begins to look; done is closed when the stream has ended.
func watches(h http.Handler, address string, v *viewer) (leave context.CancelFunc, done chan struct{}) {
	v.header = http.Header{}
	ctx, leave := context.WithCancel(context.Background())
	done = make(chan struct{})
	go func() {
		defer close(done)
		h.ServeHTTP(v, httptest.NewRequest(http.MethodGet, address, nil).WithContext(ctx))
	}()
	return leave, done
}

// wait waits in virtual time.
func wait(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // of virtual time
	synctest.Wait()
}

// countingPage is a page that counts how often its pools are read.
func countingPage(t *testing.T) (*handler, *atomic.Int32) {
	h, reads := page(t).(*handler), new(atomic.Int32)
	read := h.steps.read
	h.steps.read = func() *document { reads.Add(1); return read() }
	return h, reads
}

func TestAStreamSendsWhatChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, _ := open(t, sqllease.Config{Name: "shop", MaxOpen: 2})
		h := page(t)
		var v viewer
		leave, done := watches(h, "/?format=stream", &v)
		synctest.Wait()
		assert.Equal(t, "text/event-stream", v.header.Get("Content-Type"))
		_, parts := v.events(t)
		require.Len(t, parts, 1)
		assert.Len(t, parts[0], len(sectionNames), "first all of it")
		assert.Contains(t, parts[0]["sentences"], "All is well: 0 of 2 in use")
		assert.Equal(t, time.Now().Add(10*time.Second), v.until())

		wait(1500 * time.Millisecond)
		held := conn(t, db)
		wait(time.Second)
		kinds, parts := v.events(t)
		assert.Equal(t, []string{"step", "step", "step"}, kinds, "one a second")
		assert.NotContains(t, parts[1], "sentences", "nothing has changed in it")
		assert.NotContains(t, parts[1], "queue")
		assert.Contains(t, parts[2]["sentences"], "All is well: 1 of 2 in use")
		assert.Contains(t, parts[2]["out"], "livepage/main_test.go")

		leave()
		<-done
		require.NoError(t, held.Close())
	})
}

func TestWhileNobodyLooksNothingIsDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		open(t, sqllease.Config{Name: "shop", MaxOpen: 2})
		h, reads := countingPage(t)
		wait(time.Hour)
		assert.Zero(t, reads.Load())

		var viewers [5]viewer
		var leave [5]context.CancelFunc
		var done [5]chan struct{}
		for i := range viewers {
			leave[i], done[i] = watches(h, "/?format=stream", &viewers[i])
		}
		synctest.Wait()
		assert.Equal(t, int32(1), reads.Load(), "they share what is read")
		wait(10 * time.Second)
		assert.Equal(t, int32(11), reads.Load(), "once a second")
		for i := range viewers {
			leave[i]()
			<-done[i]
		}
		assert.Nil(t, h.steps.doc, "and then it is let go")
		wait(time.Hour)
		assert.Equal(t, int32(11), reads.Load())
	})
}

func TestAStreamEndsAfterAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		open(t, sqllease.Config{Name: "shop"})
		var v viewer
		begun := time.Now()
		leave, done := watches(page(t), "/?format=stream", &v)
		defer leave()
		<-done
		assert.Equal(t, time.Minute, time.Since(begun))
	})
}

func TestAStreamEndsWhereNobodyReadsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		open(t, sqllease.Config{Name: "shop"})
		v := viewer{fails: io.ErrClosedPipe}
		begun := time.Now()
		leave, done := watches(page(t), "/?format=stream", &v)
		defer leave()
		<-done
		assert.Zero(t, time.Since(begun))
	})
}

func TestAFrozenStreamIsOneStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		open(t, sqllease.Config{Name: "shop"})
		var v viewer
		leave, done := watches(page(t), "/?format=stream&until=946684799000", &v)
		defer leave()
		<-done
		kinds, parts := v.events(t)
		assert.Equal(t, []string{"step", "frozen"}, kinds)
		assert.Contains(t, parts[0]["head"], "frozen at")
	})
}

func TestAStreamNeedsAWriterThatFlushes(t *testing.T) {
	v := viewer{unflushed: true}
	leave, done := watches(page(t), "/?format=stream", &v)
	defer leave()
	<-done
	assert.Equal(t, http.StatusNotImplemented, v.code)
	assert.Contains(t, v.text.String(), "reload the page")
}

func TestAStreamKeepsThePoolThatItBeganWith(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		open(t, sqllease.Config{Name: "first", MaxOpen: 3})
		db, _ := open(t, sqllease.Config{Name: "second", MaxOpen: 1})
		var v viewer
		leave, done := watches(page(t), "/?format=stream", &v)
		wait(time.Second)
		held := conn(t, db) // now the second is worse
		wait(2 * time.Second)
		_, parts := v.events(t)
		assert.Regexp(t, `(?s)<h1>.*first.*</h1>`, parts[0]["sentences"])
		last := parts[len(parts)-1]["sentences"]
		assert.Regexp(t, `(?s)<h1>.*first.*</h1>.*second.*1 of 1`, last)
		leave()
		<-done
		require.NoError(t, held.Close())
	})
}

// served is a server of the page, and its address.
func served(t *testing.T, h http.Handler, writeTimeout time.Duration) (*http.Server, string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute, WriteTimeout: writeTimeout}
	done := make(chan struct{})
	go func() {
		defer close(done)
		assert.ErrorIs(t, server.Serve(l), http.ErrServerClosed)
	}()
	t.Cleanup(func() {
		require.NoError(t, server.Close())
		<-done
	})
	return server, "http://" + l.Addr().String()
}

// stream opens a stream, and has read its first line.
func stream(t *testing.T, address string) *bufio.Reader {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true}
	res, err := (&http.Client{Transport: transport}).Get(address + "/?format=stream")
	require.NoError(t, err)
	t.Cleanup(func() { _ = res.Body.Close() })
	r := bufio.NewReader(res.Body)
	line, err := r.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "event: step\n", line)
	return r
}

func TestAServerThatShutsDownEndsItsStreams(t *testing.T) {
	open(t, sqllease.Config{Name: "shop"})
	h := page(t)
	server, address := served(t, h, 0)
	first, second := stream(t, address), stream(t, address)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	require.NoError(t, server.Shutdown(ctx), "it does not wait for them")
	for _, r := range []*bufio.Reader{first, second} {
		_, err := io.Copy(io.Discard, r)
		require.NoError(t, err, "they ended as they should")
	}
	assert.Len(t, h.(*handler).streams.servers, 1)
}

func TestTheWriteTimeoutOfAServerEndsNoStream(t *testing.T) {
	open(t, sqllease.Config{Name: "shop"})
	_, address := served(t, page(t), 50*time.Millisecond)
	r := stream(t, address)
	for range 8 { // two more events take a second or two
		_, err := r.ReadString('\n')
		require.NoError(t, err)
	}
}
