package advisor

import (
	"encoding/binary"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// FuzzAdvise gives the advisor recordings that no pool makes.
func FuzzAdvise(f *testing.F) {
	f.Add([]byte{}, 0.99, int64(0), 10, 0, 0)
	f.Add(make([]byte, 4000), 0.5, int64(time.Millisecond), 0, 3, 2)
	ordinary := make([]byte, 0, 4000)
	for i := range 500 {
		ordinary = append(ordinary, byte(i), byte(i/7), byte(i*31), byte(i*17), byte(i%5), byte(i%11), 1, 0)
	}
	f.Add(ordinary, 0.99, int64(1000), 4, 0, 100)
	f.Fuzz(func(t *testing.T, data []byte, q float64, wait int64, limit, floor, ceiling int) {
		r := Recording{Limit: limit, Floor: floor, Ceiling: ceiling}
		if len(data) > 8 {
			r.Length = time.Duration(binary.LittleEndian.Uint64(data)) //nolint:gosec // any value
		}
		for at := time.Duration(0); len(data) >= 8 && len(r.Leases) < 2000; data = data[8:] {
			at += time.Duration(data[0]) << (data[6] % 60)
			l := Lease{
				Arrived: at, Acquired: at + time.Duration(int8(data[1])), Ended: at + time.Duration(int8(data[1])) + time.Duration(int8(data[2]))<<(data[3]%57), //nolint:gosec // any value
				Unused: time.Duration(int8(data[4])), Dial: time.Duration(int8(data[5])), Reset: time.Duration(data[5] % 3), Place: int(data[4]), //nolint:gosec // any value
				InUse: int(int8(data[7])), Failed: data[7]%13 == 1, //nolint:gosec // any value
			}
			r.Leases = append(r.Leases, l)
		}
		sound(t, Advise(r, Goal{Quantile: q, Wait: time.Duration(wait)}))
	})
}

// sound checks that an advice has no value that cannot be.
func sound(t *testing.T, a Advice) {
	t.Helper()
	for name, share := range map[string]float64{
		"unused": a.UnusedShare, "dials": a.DialShare, "slow": a.SlowShare, "utilisation": a.Recorded.Utilisation, "quantile": a.Goal.Quantile,
	} {
		assert.True(t, share >= 0 && share <= 1.000001, "%s is %v", name, share)
	}
	assert.True(t, a.Slowdown >= 0 && !math.IsInf(a.Slowdown, 0), "slowdown %v", a.Slowdown)
	assert.True(t, a.Refused != "" == (a.Limit == 0), "%q, %d", a.Refused, a.Limit)
	if a.Refused == "" {
		assert.True(t, 1 <= a.Low && a.Low <= a.Limit && a.Limit <= a.High, "%d to %d, %d", a.Low, a.High, a.Limit)
		assert.True(t, a.Collapse == 0 || a.Limit < a.Collapse, "%d, collapse %d", a.Limit, a.Collapse)
	}
	assert.GreaterOrEqual(t, a.Try, 0)
	for _, p := range append(a.Curve, a.Recorded) {
		assert.True(t, p.Utilisation >= 0 && p.Utilisation <= 1.000001, "%+v", p)
		for _, d := range []time.Duration{p.P50, p.P99, p.P999, p.Wait, p.Response} {
			assert.GreaterOrEqual(t, d, time.Duration(0), "%+v", p)
		}
	}
}
