package recording

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestARingKeepsTheLast(t *testing.T) {
	var r Ring[int]
	add := func(from, to int) {
		for i := from; i <= to; i++ {
			r.Add(&i)
		}
	}
	add(1, 3)
	all, whole := r.All()
	assert.Empty(t, all, "it has no size")
	assert.True(t, whole)
	assert.False(t, r.On())

	r.Resize(3)
	assert.True(t, r.On())
	add(1, 2)
	all, whole = r.All()
	assert.Equal(t, []int{1, 2}, all)
	assert.True(t, whole)

	r.Resize(3)
	add(3, 3)
	all, whole = r.All()
	assert.Equal(t, []int{1, 2, 3}, all, "the same size keeps what there is")
	assert.True(t, whole)

	add(4, 8)
	all, whole = r.All()
	assert.Equal(t, []int{6, 7, 8}, all)
	assert.False(t, whole)

	r.Resize(-1)
	add(9, 9)
	all, _ = r.All()
	assert.Empty(t, all)
	assert.False(t, r.On())
}

func TestARingHasManyWriters(t *testing.T) {
	const writers, each = 8, 500
	var r Ring[[2]int]
	r.Resize(writers * each)
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for i := range each {
				r.Add(&[2]int{w, i})
				if i%50 == 0 {
					r.All()
				}
			}
		})
	}
	all.Wait()
	kept, whole := r.All()
	assert.True(t, whole)
	next := [writers]int{}
	for _, x := range kept {
		assert.Equal(t, next[x[0]], x[1], "each writer's are in order, and none is missing")
		next[x[0]]++
	}
	assert.Len(t, kept, writers*each)
}

func TestKeepingAllocatesNothing(t *testing.T) {
	var r Ring[[4]uint64]
	r.Resize(10)
	assert.Zero(t, testing.AllocsPerRun(100, func() { r.Add(&[4]uint64{1, 2, 3, 4}) }))
}

func TestTheStandardIsNeverNegative(t *testing.T) {
	defer SetStandard(Standard())
	SetStandard(-3)
	assert.Zero(t, Standard())
	SetStandard(7)
	assert.Equal(t, 7, Standard())
}
