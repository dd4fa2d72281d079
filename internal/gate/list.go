package gate

// node is one element's place in a list. It is embedded in the element, so
// that joining and leaving a list allocates nothing. An element is in one
// list at a time per node.
type node[T any] struct {
	next, prev *node[T]
	in         *list[T] // the list it is in; nil: none
	of         *T       // the element; set by push
}

// list is a doubly linked list, oldest element first. It is not safe for
// concurrent use: whatever guards it guards its elements' nodes.
type list[T any] struct {
	first, last *node[T]
	len         int
}

// push appends x, whose node is n.
func (l *list[T]) push(n *node[T], x *T) {
	if n.in != nil {
		panic("sqllease: bug: an element joins a list while it is in one")
	}
	n.of, n.in = x, l
	n.prev, n.next = l.last, nil
	if l.last == nil {
		l.first = n
	} else {
		l.last.next = n
	}
	l.last = n
	l.len++
}

// pushAfter puts x, whose node is n, behind another; nil: before all.
func (l *list[T]) pushAfter(before, n *node[T], x *T) {
	if before == l.last {
		l.push(n, x)
		return
	}
	if n.in != nil {
		panic("sqllease: bug: an element joins a list while it is in one")
	}
	n.of, n.in = x, l
	n.prev, n.next = before, l.first
	if before != nil {
		n.next = before.next
		before.next = n
	} else {
		l.first = n
	}
	n.next.prev = n
	l.len++
}

// newest is the element that joined last; nil: there is none.
func (l *list[T]) newest() *T {
	if l.last == nil {
		return nil
	}
	return l.last.of
}

// remove takes n out of l.
func (l *list[T]) remove(n *node[T]) {
	if n.in != l {
		panic("sqllease: bug: an element leaves a list it is not in")
	}
	if n.prev == nil {
		l.first = n.next
	} else {
		n.prev.next = n.next
	}
	if n.next == nil {
		l.last = n.prev
	} else {
		n.next.prev = n.prev
	}
	n.next, n.prev, n.in = nil, nil, nil
	l.len--
}

// popFirst takes the oldest element out of l; nil if there is none.
func (l *list[T]) popFirst() *T {
	if l.first == nil {
		return nil
	}
	n := l.first
	l.remove(n)
	return n.of
}

// each calls f for every element, oldest first, until f returns false. f may
// remove the element it was called for.
func (l *list[T]) each(f func(*T) bool) {
	for n := l.first; n != nil; {
		next := n.next
		if !f(n.of) {
			return
		}
		n = next
	}
}
